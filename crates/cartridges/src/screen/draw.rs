//! How the screen looks.

use std::time::Duration;

use indicatif::HumanDuration;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{
    Axis, Block, Cell, Chart, Dataset, Gauge, GraphType, Paragraph, Row, Table,
};
use serde_json::Value;

use super::board::{Board, Scores};

/// Points that a curve is drawn with at most.
const MOST_POINTS: usize = 2000;

/// Columns of an evaluation's table that are shown, with their widths.
const COLUMNS: [(&str, Constraint); 6] = [
    ("prompt", Constraint::Fill(2)),
    ("answer", Constraint::Fill(1)),
    ("pred", Constraint::Fill(2)),
    ("nll", Constraint::Length(7)),
    ("choice", Constraint::Length(6)),
    ("score", Constraint::Length(6)),
];

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board) {
    let [head, middle, bottom, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [curve, scores] =
        Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(middle);
    draw_head(frame, head, board);
    draw_curve(frame, curve, board);
    draw_scores(frame, scores, &board.scores);
    draw_table(frame, bottom, board);
    let keys = match board.stopping {
        false => "q or Ctrl-C: stop with a checkpoint · Tab: next table",
        true => "stopping after this step; once more: quit at once",
    };
    frame.render_widget(Paragraph::new(keys), foot);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let [text, bar] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let mut parts = Vec::new();
    if let Some(last) = &board.last {
        parts.push(format!("loss {:.4}", last.loss));
        parts.push(format!("lr {:.2e}", last.lr));
        parts.push(format!("gradient {:.3}", last.grad_norm));
    }
    if let Some(rate) = board.tokens_per_second() {
        parts.push(format!("{rate:.0} tok/s"));
    }
    if let Some(left) = board.seconds_left() {
        let left = HumanDuration(Duration::from_secs_f64(left.clamp(0.0, 1e9)));
        parts.push(format!("about {left} left"));
    }
    if parts.is_empty() {
        parts.push("before the first step".to_owned());
    }
    frame.render_widget(Paragraph::new(parts.join(" · ")), text);
    let ratio = board.done as f64 / board.total.max(1) as f64;
    let gauge = Gauge::default()
        .gauge_style(Style::new().fg(Color::Cyan))
        .ratio(ratio.clamp(0.0, 1.0))
        .label(format!("step {} of {}", board.done, board.total));
    frame.render_widget(gauge, bar);
}

/// The least and the largest, apart even where they are equal.
fn bounds(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let finite = values.filter(|x| x.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
        (low.min(x), high.max(x))
    });
    (low <= high).then_some(match high > low {
        true => [low, high],
        false => [low - 0.5, high + 0.5],
    })
}

fn draw_curve(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let block = Block::bordered().title("loss");
    let (Some(x), Some(y)) = (
        bounds(board.losses.iter().map(|(step, _)| *step)),
        bounds(board.losses.iter().map(|(_, loss)| *loss)),
    ) else {
        frame.render_widget(block, area);
        return;
    };
    let every = board.losses.len().div_ceil(MOST_POINTS).max(1);
    let points: Vec<(f64, f64)> = board.losses.iter().copied().step_by(every).collect();
    let data = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().fg(Color::Green))
        .data(&points);
    let axis = |bounds: [f64; 2], digits: usize| {
        let labels = bounds.map(|x| Line::from(format!("{x:.digits$}")));
        Axis::default().bounds(bounds).labels(labels)
    };
    let chart = Chart::new(vec![data])
        .block(block)
        .x_axis(axis(x, 0))
        .y_axis(axis(y, 3))
        .legend_position(None);
    frame.render_widget(chart, area);
}

fn draw_scores(frame: &mut Frame<'_>, area: Rect, scores: &[Scores]) {
    let header = Row::new(["evaluation", "first", "now", "step"]);
    let rows = scores.iter().map(|s| {
        let number = |value: Option<&(usize, f64)>| {
            value.map_or_else(String::new, |(_, x)| format!("{x:.3}"))
        };
        let step = s.values.last().map_or(0, |(step, _)| *step);
        Row::new([
            s.name.clone(),
            number(s.values.first()),
            number(s.values.last()),
            step.to_string(),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(6),
    ];
    let table = Table::new(rows, widths)
        .header(header.style(Modifier::BOLD))
        .block(Block::bordered().title("evaluations"));
    frame.render_widget(table, area);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let Some(shown) = board.tables.get(board.shown) else {
        frame.render_widget(Block::bordered().title("answers"), area);
        return;
    };
    let place = |name: &str| shown.columns.iter().position(|c| c == name);
    let columns: Vec<(usize, &str, Constraint)> = COLUMNS
        .into_iter()
        .filter_map(|(name, width)| Some((place(name)?, name, width)))
        .collect();
    let cell = |value: Option<&Value>| match value {
        Some(Value::String(text)) => {
            Cell::new(text.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        Some(Value::Bool(true)) => Cell::new("right").style(Color::Green),
        Some(Value::Bool(false)) => Cell::new("wrong").style(Color::Red),
        Some(Value::Number(x)) => Cell::new(format!("{:.3}", x.as_f64().unwrap_or(f64::NAN))),
        _ => Cell::new(""),
    };
    let rows = shown.rows.iter().map(|row| {
        Row::new(
            columns
                .iter()
                .map(|(at, ..)| cell(row.get(*at)))
                .collect::<Vec<_>>(),
        )
    });
    let header = Row::new(columns.iter().map(|(_, name, _)| *name).collect::<Vec<_>>());
    let title = format!(
        "{} ({} of {})",
        shown.name,
        board.shown + 1,
        board.tables.len()
    );
    let table = Table::new(rows, columns.iter().map(|(.., width)| *width))
        .header(header.style(Modifier::BOLD))
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use cartridges_train::StepReport;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn report(step: usize) -> StepReport {
        StepReport {
            step,
            total: 40,
            loss: 8.0 / step as f64,
            lr: 5e-3,
            grad_norm: 0.25,
            tokens: 300,
            targets: 10,
            on_policy_kl: None,
            epoch: 0,
            rows: step,
            total_tokens: 300 * step,
            total_targets: 10 * step,
            seconds: 2.0,
        }
    }

    fn lines(board: &Board) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(120, 30)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(120).map(<[&str]>::concat).collect()
    }

    #[test]
    fn numbers_of_a_run_are_on_the_screen() {
        let mut board = Board::default();
        let empty = lines(&board).join("\n");
        assert!(empty.contains("before the first step"), "{empty}");
        for step in 1..=10 {
            board.step(&report(step));
        }
        board.scalars(0, &[("eval/score", -8.0), ("eval_lamp/num_elements", 2.0)]);
        board.scalars(10, &[("eval/score", -3.5)]);
        for (name, pred) in [
            ("generate_lamp/table", "Edda\nFalk"),
            ("eval_lamp/table", "no"),
        ] {
            board.table(&cartridges_train::Table {
                name: name.to_owned(),
                columns: ["index", "prompt", "answer", "pred", "score"]
                    .map(str::to_owned)
                    .to_vec(),
                rows: vec![vec![
                    json!(0),
                    json!("Who?"),
                    json!("Edda Falk"),
                    json!(pred),
                    json!(true),
                ]],
            });
        }
        let seen = lines(&board);
        let text = seen.join("\n");
        // 300 tokens in 2 seconds; 30 steps of 2 seconds are left.
        let head = "loss 0.8000 · lr 5.00e-3 · gradient 0.250 · 150 tok/s · about 60 seconds left";
        assert!(
            seen[0].starts_with(head) || seen[0].contains("about 1 minute left"),
            "{}",
            seen[0]
        );
        assert!(seen[1].contains("step 10 of 40"), "{text}");
        for part in [
            "8.000",
            "0.800",
            "-3.500",
            "eval/score",
            "generate_lamp/table (1 of 2)",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        let row = seen.iter().find(|line| line.contains("Who?")).unwrap();
        assert!(row.contains("Edda Falk") && row.contains("right"), "{row}");
        assert!(!text.contains("num_elements"), "{text}");
        board.next_table();
        assert!(
            lines(&board)
                .join("\n")
                .contains("eval_lamp/table (2 of 2)")
        );
        board.stopping = true;
        assert!(lines(&board)[29].starts_with("stopping after this step"));
    }

    /// The curve goes from the upper left to the lower right, as 8/step does.
    #[test]
    fn the_curve_is_that_of_the_losses() {
        let mut board = Board::default();
        for step in 1..=30 {
            board.step(&report(step));
        }
        let seen = lines(&board);
        let dots = |line: &str| -> Vec<usize> {
            let braille =
                |(at, c): (usize, char)| ('\u{2801}'..='\u{28ff}').contains(&c).then_some(at);
            line.chars().enumerate().filter_map(braille).collect()
        };
        let with: Vec<Vec<usize>> = seen
            .iter()
            .map(|l| dots(l))
            .filter(|d| !d.is_empty())
            .collect();
        let (top, bottom) = (&with[0], &with[with.len() - 1]);
        assert!(top.iter().max() < bottom.iter().max(), "{top:?} {bottom:?}");
        // Half of the steps have a loss below a sixteenth of the largest.
        assert!(bottom.len() > 20 && top.len() < 4, "{top:?} {bottom:?}");
    }

    #[test]
    fn odd_sizes_and_losses_are_drawn() {
        let mut board = Board::default();
        board.step(&StepReport {
            loss: f64::NAN,
            seconds: 0.0,
            ..report(1)
        });
        board.step(&StepReport {
            loss: 1.0,
            seconds: f64::INFINITY,
            ..report(2)
        });
        for (wide, high) in [(1, 1), (10, 3), (300, 4), (40, 100)] {
            let mut terminal = Terminal::new(TestBackend::new(wide, high)).unwrap();
            terminal.draw(|frame| draw(frame, &board)).unwrap();
        }
    }
}
