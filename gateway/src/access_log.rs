//! The access log: one line per request.
//!
//! A worker writes its lines into a buffer of its own and never waits for their reader. One thread takes full buffers
//! and writes them out. When that thread cannot keep up, lines are dropped and counted.

mod clock;
mod line;
mod stream_line;
mod template;
mod tries;
mod write;

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, counter};

use crate::context::RequestContext;
use crate::phases::log::Outcome;
use crate::settings::LogFormat;
use crate::stream::{Ending, StreamFacts};
use crate::telemetry;

/// What a worker may have waiting. At 500 bytes a line these are 2,000 lines.
const MOST_WAITING: usize = 1 << 20;
/// So much is written at once: more would no longer be in the processor's cache when it is.
const FULL: usize = 64 * 1024;
/// Buffers that have grown beyond this are not kept.
const KEPT: usize = 4 * FULL;
/// How long the thread lets lines gather, if they are fewer, before it takes them: one wake-up and one write for many
/// requests.
const GATHER: Duration = Duration::from_millis(20);

/// Where access-log lines go.
#[derive(Clone)]
pub struct LogOutput(Arc<Mutex<dyn Write + Send>>);

impl LogOutput {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// This writer. Nobody but the log's thread waits for it.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }
}

impl fmt::Debug for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogOutput")
    }
}

impl Default for LogOutput {
    fn default() -> Self {
        Self::stdout()
    }
}

/// Where requests are logged. Dropping it writes what is waiting.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: Option<LogFormat>,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    buffers: Vec<Arc<Mutex<Vec<u8>>>>,
    waiting: bool,
    full: bool,
    closed: bool,
}

impl AccessLog {
    /// Writes lines in this format; `None` writes none.
    pub(crate) fn new(format: Option<LogFormat>, output: LogOutput) -> Self {
        let queue = Arc::new(Queue::default());
        let thread = format.and_then(|_| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name("access-log".to_owned())
                .spawn(move || queue.write_out(&output))
                .inspect_err(|error| tracing::error!(%error, "Cannot write an access log."))
                .ok()
        });
        Self {
            format,
            queue,
            thread,
        }
    }

    /// A writer for one worker; nothing when there is no log.
    pub(crate) fn writer(&self) -> Option<LineWriter> {
        let format = self.format?;
        self.thread.as_ref()?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        lock(&self.queue.state).buffers.push(Arc::clone(&lines));
        Some(LineWriter {
            format,
            lines,
            queue: Arc::clone(&self.queue),
            dropped: counter!(telemetry::LOG_DROPPED),
            clock: Mutex::default(),
        })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        lock(&self.queue.state).closed = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to write.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn wake(&self) {
        lock(&self.state).waiting = true;
        self.changed.notify_one();
    }

    /// Lines need not gather any longer.
    fn hurry(&self) {
        lock(&self.state).full = true;
        self.changed.notify_one();
    }

    /// The thread: takes lines until the log is closed and nothing waits.
    fn write_out(&self, output: &LogOutput) {
        let mut taken = Vec::new();
        let mut failing = false;
        let dropped = counter!(telemetry::LOG_DROPPED);
        loop {
            let (buffers, closed) = self.wait();
            for buffer in buffers {
                std::mem::swap(&mut taken, &mut *lock(&buffer));
                if taken.is_empty() {
                    continue;
                }
                let mut output = lock(&output.0);
                let written = output.write_all(&taken).and_then(|()| output.flush());
                drop(output);
                if let Err(error) = written {
                    // Once per episode: it would be logged fifty times a second.
                    if !failing {
                        tracing::error!(%error, "Cannot write to the access log.");
                    }
                    failing = true;
                    // Some of them may have been written.
                    let lines = taken.split(|byte| *byte == b'\n').count().saturating_sub(1);
                    dropped.increment(lines.try_into().unwrap_or(u64::MAX));
                } else {
                    failing = false;
                }
                taken.clear();
                taken.shrink_to(KEPT);
            }
            if closed {
                return;
            }
        }
    }

    /// Waits until lines are there and have had time to gather. The second value says that no more will come.
    fn wait(&self) -> (Vec<Arc<Mutex<Vec<u8>>>>, bool) {
        let mut state = lock(&self.state);
        while !state.waiting && !state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed {
            (state, _) = self
                .changed
                .wait_timeout_while(state, GATHER, |state| !state.closed && !state.full)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        state.full = false;
        let buffers = state.buffers.clone();
        // Those of workers that are gone are written this one last time.
        state.buffers.retain(|lines| Arc::strong_count(lines) > 2);
        (buffers, state.closed)
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One worker's end of the access log.
#[derive(Debug)]
pub(crate) struct LineWriter {
    format: LogFormat,
    /// Shared with the thread, which only ever holds it to exchange it for an empty one.
    lines: Arc<Mutex<Vec<u8>>>,
    queue: Arc<Queue>,
    dropped: Counter,
    clock: Mutex<clock::Clock>,
}

impl LineWriter {
    /// Does a line have the identity of its request also where no backend was asked?
    pub(crate) fn names_every_request(&self, context: &RequestContext) -> bool {
        match (context.table.log_format(), self.format) {
            (Some(format), _) => format.names_requests(),
            (None, LogFormat::Text) => true,
            (None, LogFormat::Json) => false,
        }
    }

    /// Writes the line of a request.
    pub(crate) fn write(
        &self,
        context: &RequestContext,
        outcome: &Outcome<'_>,
        status: StatusCode,
        elapsed: Duration,
    ) {
        let facts = line::Facts {
            context,
            outcome,
            status,
            elapsed,
        };
        self.append(
            |lines, clock| match (context.table.log_format(), self.format) {
                (Some(format), _) => template::line(lines, &facts, clock, format),
                (None, LogFormat::Json) => line::json(lines, &facts, clock),
                (None, LogFormat::Text) => {
                    template::line(lines, &facts, clock, &template::DEFAULT);
                }
            },
        );
    }

    /// Writes the line of a stream.
    pub(crate) fn write_stream(
        &self,
        facts: &StreamFacts,
        ending: Ending,
        received: u64,
        sent: u64,
    ) {
        let facts = stream_line::Facts {
            stream: facts,
            ending,
            received,
            sent,
        };
        self.append(|lines, clock| match self.format {
            LogFormat::Json => stream_line::json(lines, &facts, clock),
            LogFormat::Text => stream_line::text(lines, &facts, clock),
        });
    }

    fn append(&self, line: impl FnOnce(&mut Vec<u8>, &mut clock::Clock)) {
        let mut lines = lock(&self.lines);
        if lines.len() >= MOST_WAITING {
            drop(lines);
            self.dropped.increment(1);
            return;
        }
        let before = lines.len();
        line(&mut lines, &mut lock(&self.clock));
        let after = lines.len();
        drop(lines);
        if before == 0 {
            self.queue.wake();
        }
        if before < FULL && after >= FULL {
            self.queue.hurry();
        }
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.queue.wake();
    }
}
