//! A figure that is ready to be written.

use super::canvas::Canvas;
use super::ink::{DARK, LIGHT, PAGE_STYLE};
use super::text::escaped;

/// What the figure stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// Light or dark, as the reader's system asks for.
    Reader,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Stem of its file.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What a reader has to know to read it.
    pub caption: String,
    /// Width in units of the drawing, which are pixels at full size.
    pub width: f64,
    /// Height in the same units.
    pub height: f64,
    pub(super) body: String,
}

impl Figure {
    pub(super) fn new(name: &str, title: String, caption: String, canvas: Canvas) -> Self {
        Self {
            name: name.to_owned(),
            title,
            caption,
            width: canvas.width,
            height: canvas.height,
            body: canvas.body,
        }
    }

    /// The figure as a file of its own.
    pub fn svg(&self, ground: Ground) -> String {
        let style = match ground {
            Ground::Reader => PAGE_STYLE,
            Ground::Light => LIGHT,
            Ground::Dark => DARK,
        };
        let (width, height) = (self.width, self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"DejaVu Sans, Verdana, sans-serif\" \
             role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n<style>{style}</style>\n{}</svg>\n",
            escaped(&self.title),
            escaped(&self.caption),
            self.body,
        )
    }

    /// The figure as a part of a page that carries [`PAGE_STYLE`] itself.
    pub(crate) fn inline(&self) -> String {
        let (width, height) = (self.width, self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            escaped(&self.title),
            self.body,
        )
    }
}
