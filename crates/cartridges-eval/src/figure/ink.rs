//! Colours and markers. What colour tells, shape tells too.

use crate::measurement::ConditionKind;

/// Forms of markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An empty circle.
    Ring,
    /// A square.
    Square,
    /// A filled circle.
    Disc,
    /// A triangle that points up.
    Triangle,
    /// A diamond.
    Diamond,
    /// A triangle that points down.
    Wedge,
    /// An upright cross.
    Cross,
}

/// The form of a condition's marker.
pub(crate) fn shape(kind: ConditionKind) -> Shape {
    match kind {
        ConditionKind::None => Shape::Ring,
        ConditionKind::Document => Shape::Square,
        ConditionKind::Cartridge => Shape::Disc,
        ConditionKind::Adapter => Shape::Triangle,
        ConditionKind::Beginning => Shape::Diamond,
        ConditionKind::Summary => Shape::Wedge,
        ConditionKind::Retrieval => Shape::Cross,
    }
}

/// The colour class of a condition in a figure of one report.
pub(crate) fn class(kind: ConditionKind) -> &'static str {
    match kind {
        ConditionKind::None => "cf-none",
        ConditionKind::Document => "cf-document",
        ConditionKind::Cartridge => "cf-0",
        ConditionKind::Adapter => "cf-1",
        ConditionKind::Beginning => "cf-2",
        ConditionKind::Summary => "cf-3",
        ConditionKind::Retrieval => "cf-4",
    }
}

const REPORTS: [&str; 7] = ["cf-0", "cf-1", "cf-2", "cf-3", "cf-4", "cf-5", "cf-6"];

/// The colour class of the `index`-th of several reports in one figure.
pub(crate) fn report_class(index: usize) -> &'static str {
    REPORTS[index % REPORTS.len()]
}

/// After Okabe and Ito (2008), darker on light ground and lighter on dark ground so that each keeps a
/// contrast of 4.5 : 1, as text has to.
macro_rules! light {
    () => {
        ".cf-ground{fill:#ffffff}.cf-text{fill:#1c2733}.cf-faint{fill:#55616e}\
.cf-halo{stroke:#ffffff}.cf-grid{stroke:#e3e8ed}.cf-axis{stroke:#8a95a1}.cf-mark{stroke:#b3261e}\
.cf-none{color:#6b7580}.cf-document{color:#1c2733}.cf-0{color:#0067a5}.cf-1{color:#c04a00}.cf-2{color:#007a5a}\
.cf-3{color:#a1467f}.cf-4{color:#8a6400}.cf-5{color:#4f4fc4}.cf-6{color:#7a4a2b}"
    };
}

macro_rules! dark {
    () => {
        ".cf-ground{fill:#161b22}.cf-text{fill:#e6edf3}.cf-faint{fill:#a2adb8}\
.cf-halo{stroke:#161b22}.cf-grid{stroke:#2a323c}.cf-axis{stroke:#6b7682}.cf-mark{stroke:#ff8a80}\
.cf-none{color:#98a3af}.cf-document{color:#e6edf3}.cf-0{color:#5ab4ee}.cf-1{color:#ff9254}.cf-2{color:#35c99b}\
.cf-3{color:#e394c6}.cf-4{color:#e0b13a}.cf-5{color:#a3a3ff}.cf-6{color:#d1a07f}"
    };
}

macro_rules! forms {
    () => {
        ".cf-fill{fill:currentColor}.cf-line{stroke:currentColor;fill:none}.cf-label{fill:currentColor}\
.cf-halo{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}"
    };
}

/// Colours for light ground.
pub(crate) const LIGHT: &str = concat!(forms!(), light!());
/// Colours for dark ground.
pub(crate) const DARK: &str = concat!(forms!(), dark!());
/// Colours that follow the reader's setting. Plain rules instead of variables, which not every
/// program that shows SVG knows; paper is light.
pub(crate) const PAGE_STYLE: &str = concat!(
    forms!(),
    light!(),
    "@media screen and (prefers-color-scheme:dark){",
    dark!(),
    "}"
);
