//! The terminal that the screen is drawn on, and the keys.

use std::io::{self, IsTerminal};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cartridges_train::{RunStart, StepReport, Table, TrackError, Tracker};
use ratatui::Terminal;
use ratatui_crossterm::CrosstermBackend;
use ratatui_crossterm::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui_crossterm::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui_crossterm::crossterm::{cursor, execute};

use super::board::Board;
use super::draw::draw;
use crate::interrupt::stop_flag;

/// How often it is drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// Whether the terminal is in our hands.
static OURS: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back as it was, if it is in our hands.
pub(crate) fn restore() {
    if OURS.swap(false, Ordering::SeqCst) {
        // There is nobody to tell if the terminal is gone.
        let _ = disable_raw_mode();
        let _ = execute!(io::stderr(), LeaveAlternateScreen, cursor::Show);
    }
}

fn take() -> io::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
    });
    enable_raw_mode()?;
    OURS.store(true, Ordering::SeqCst);
    execute!(io::stderr(), EnterAlternateScreen)
}

/// The screen of a run. A thread of its own draws it and reads keys, so that a slow step does not stop
/// the keys; it ends, and the terminal is as before, when this is dropped.
pub(crate) struct Screen {
    board: Arc<Mutex<Board>>,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal; `None` if there is none.
    pub(crate) fn open() -> io::Result<Option<Self>> {
        if !(io::stderr().is_terminal() && io::stdin().is_terminal()) {
            return Ok(None);
        }
        let (board, closed) = (Arc::default(), Arc::default());
        let mut screen = Self {
            board,
            closed,
            thread: None,
        };
        if let Err(error) = take() {
            restore();
            return Err(error);
        }
        let (board, closed) = (screen.board.clone(), screen.closed.clone());
        let thread = std::thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || {
                // Training goes on without a screen.
                if let Err(error) = show(&board, &closed) {
                    restore();
                    eprintln!("the screen is gone: {error}");
                }
            })?;
        screen.thread = Some(thread);
        Ok(Some(screen))
    }

    /// What tells the screen about a run.
    pub(crate) fn tracker(&self) -> Box<dyn Tracker> {
        Box::new(BoardTracker(self.board.clone()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        restore();
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Draws and reads keys until the screen is closed.
fn show(board: &Mutex<Board>, closed: &AtomicBool) -> io::Result<()> {
    let stop = stop_flag();
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stderr()))?;
    while !closed.load(Ordering::SeqCst) {
        // A signal may have raised the flag too, and left a line on the screen.
        let stopping = stop.load(Ordering::Relaxed);
        if stopping && !lock(board).stopping {
            lock(board).stopping = true;
            // A new one draws everything, and unlike `clear` does not ask where the cursor is, which not
            // every terminal answers.
            execute!(io::stderr(), Clear(ClearType::All))?;
            terminal = Terminal::new(CrosstermBackend::new(io::stderr()))?;
        }
        terminal.draw(|frame| draw(frame, &lock(board)))?;
        if !event::poll(TICK)? {
            continue;
        }
        let Event::Key(key) = event::read()? else {
            continue;
        };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => asked_to_stop(&stop),
            KeyCode::Char('q') => asked_to_stop(&stop),
            KeyCode::Tab => lock(board).next_table(),
            _ => {}
        }
    }
    Ok(())
}

/// In raw mode Ctrl-C is a key and no signal; it means the same.
fn asked_to_stop(stop: &AtomicBool) {
    if stop.swap(true, Ordering::Relaxed) {
        restore();
        std::process::exit(130);
    }
}

struct BoardTracker(Arc<Mutex<Board>>);

impl Tracker for BoardTracker {
    fn begin(&mut self, start: &RunStart<'_>) -> Result<(), TrackError> {
        lock(&self.0).begin(start);
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrackError> {
        lock(&self.0).step(report);
        Ok(())
    }

    fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), TrackError> {
        lock(&self.0).scalars(step, values);
        Ok(())
    }

    fn table(&mut self, _: usize, table: &Table) -> Result<(), TrackError> {
        lock(&self.0).table(table);
        Ok(())
    }
}
