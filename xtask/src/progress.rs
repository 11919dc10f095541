//! Steps with an expected and a measured time, and the table of them at the end.
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The steps of one command. Steps may nest; the table lists them in the order in which they began.
pub struct Steps {
    title: String,
    began: Instant,
    depth: Cell<usize>,
    rows: RefCell<Vec<Row>>,
    last_live: Cell<Option<Instant>>,
    on_terminal: bool,
}

struct Row {
    depth: usize,
    name: String,
    expected: String,
    took: Option<Duration>,
}

impl Steps {
    /// Starts the clock of a command called `title` in its table.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            began: Instant::now(),
            depth: Cell::new(0),
            rows: RefCell::new(Vec::new()),
            last_live: Cell::new(None),
            on_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Runs one step. `expected` says how long it may take ("about 10 s"; "10 min cold, 1 s warm").
    ///
    /// # Errors
    /// What `body` returns, with the step's name around it.
    pub fn run<T>(&self, name: &str, expected: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let depth = self.depth.get();
        eprintln!("{}▸ {name} ({expected})", "  ".repeat(depth));
        let index = self.rows.borrow().len();
        self.rows.borrow_mut().push(Row {
            depth,
            name: name.to_owned(),
            expected: expected.to_owned(),
            took: None,
        });
        self.depth.set(depth + 1);
        self.last_live.set(None);
        let began = Instant::now();
        let result = body();
        self.depth.set(depth);
        self.clear_live();
        let took = began.elapsed();
        if let Some(row) = self.rows.borrow_mut().get_mut(index) {
            row.took = Some(took);
        }
        let mark = if result.is_ok() { "✓" } else { "✗" };
        eprintln!("{}{mark} {name}: {}", "  ".repeat(depth), span(took));
        result.with_context(|| format!("step \"{name}\" failed"))
    }

    /// Says something that stays on the screen.
    pub fn say(&self, text: &str) {
        self.clear_live();
        for line in text.lines() {
            eprintln!("{}{line}", "  ".repeat(self.depth.get()));
        }
    }

    /// Says how far the running step is: one changing line on a terminal, else a line every 15 seconds.
    pub fn live(&self, text: &str) {
        let indent = "  ".repeat(self.depth.get());
        let due = |gap| self.last_live.get().is_none_or(|at| at.elapsed() >= gap);
        if self.on_terminal {
            if due(Duration::from_millis(200)) {
                self.last_live.set(Some(Instant::now()));
                eprint!("\r\x1b[2K{indent}{text}");
                let _ = std::io::stderr().flush();
            }
        } else if due(Duration::from_secs(15)) {
            self.last_live.set(Some(Instant::now()));
            eprintln!("{indent}{text}");
        }
    }

    /// Prints the table of timings.
    pub fn table(&self) {
        let rows = self.rows.borrow();
        let width =
            rows.iter().map(|row| row.name.chars().count() + 2 * row.depth).max().unwrap_or(0).max(20);
        eprintln!("\n{:width$}  {:>9}  expected", self.title, "took");
        for row in rows.iter() {
            let name = format!("{}{}", "  ".repeat(row.depth), row.name);
            let took = row.took.map_or_else(|| "…".to_owned(), span);
            eprintln!("{name:width$}  {took:>9}  {}", row.expected);
        }
        eprintln!("{:width$}  {:>9}", "all", span(self.began.elapsed()));
    }

    fn clear_live(&self) {
        if self.on_terminal && self.last_live.take().is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}

/// A duration as people write it: `0.4 s`, `7 s`, `12 min 05 s`.
#[must_use]
pub fn span(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}
