//! What is logged, for tests to wait for.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::shared::PATIENCE;

/// Everything that was logged.
#[derive(Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>, watch::Sender<usize>);

impl Default for Log {
    fn default() -> Self {
        Self(Arc::default(), watch::Sender::new(0))
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        self.1.send_modify(|writes| *writes += 1);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Everything, as it was written.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits for the first line that `wanted` accepts.
    pub(crate) async fn line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut writes = self.1.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(line) = self.lines().into_iter().find(&wanted) {
                    return line;
                }
                writes.changed().await.unwrap();
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no such line in\n{}", self.text()))
    }
}
