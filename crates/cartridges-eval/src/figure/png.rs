//! Figures as PNG, drawn with fonts of our own: the same picture on every machine.

use std::sync::{Arc, OnceLock};

use resvg::{tiny_skia, usvg};

use super::picture::{Figure, Ground};

const REGULAR: &[u8] = include_bytes!("../../../../assets/fonts/DejaVuSans-subset.ttf");
const BOLD: &[u8] = include_bytes!("../../../../assets/fonts/DejaVuSans-Bold-subset.ttf");
/// Pixels along a side; more is a mistake.
const LARGEST: f64 = 16_384.0;

/// A figure that could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum PngError {
    /// The SVG was not understood.
    #[error("figure `{figure}`: {source}")]
    Svg {
        /// Name of the figure.
        figure: String,
        /// Why not.
        #[source]
        source: Box<usvg::Error>,
    },
    /// Too large, or not a size at all.
    #[error(
        "figure `{figure}` would be {width:.0} x {height:.0} pixels; at most {LARGEST:.0} are drawn"
    )]
    Size {
        /// Name of the figure.
        figure: String,
        /// Width in pixels.
        width: f64,
        /// Height in pixels.
        height: f64,
    },
    /// The picture could not be packed.
    #[error("figure `{figure}`: {reason}")]
    Encode {
        /// Name of the figure.
        figure: String,
        /// Why not.
        reason: String,
    },
}

fn fonts() -> Arc<usvg::fontdb::Database> {
    static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(REGULAR.to_vec());
        fonts.load_font_data(BOLD.to_vec());
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

impl Figure {
    /// The figure as PNG, with `scale` pixels for each unit.
    ///
    /// # Errors
    /// [`PngError`] with the figure's name.
    pub fn png(&self, ground: Ground, scale: f64) -> Result<Vec<u8>, PngError> {
        let (width, height) = ((self.width * scale).ceil(), (self.height * scale).ceil());
        let size = || PngError::Size {
            figure: self.name.clone(),
            width,
            height,
        };
        if !(1.0..=LARGEST).contains(&width) || !(1.0..=LARGEST).contains(&height) {
            return Err(size());
        }
        let options = usvg::Options {
            fontdb: fonts(),
            font_family: "DejaVu Sans".to_owned(),
            ..usvg::Options::default()
        };
        // A picture has no reader whose setting could be asked.
        let ground = if ground == Ground::Reader {
            Ground::Light
        } else {
            ground
        };
        let tree =
            usvg::Tree::from_str(&self.svg(ground), &options).map_err(|source| PngError::Svg {
                figure: self.name.clone(),
                source: Box::new(source),
            })?;
        let mut pixels = tiny_skia::Pixmap::new(width as u32, height as u32).ok_or_else(size)?;
        let transform = tiny_skia::Transform::from_scale(scale as f32, scale as f32);
        resvg::render(&tree, transform, &mut pixels.as_mut());
        pixels.encode_png().map_err(|e| PngError::Encode {
            figure: self.name.clone(),
            reason: e.to_string(),
        })
    }
}
