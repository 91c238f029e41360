//! The cluster's own programs: how each is started, and who may end it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::process::Program;

/// How long a program may take to end when it is asked to.
const STOP: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// How a program is started, the first time and again.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// What it is called in orders and in the name of its log.
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) log: PathBuf,
}

impl Spec {
    pub(super) fn start(&self) -> Result<Program> {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Program::start(
            &self.name,
            &self.program,
            &self.arguments,
            &environment,
            self.log.clone(),
        )
    }
}

/// Every program by its name. Dropping this ends them all.
#[derive(Debug, Default)]
pub(super) struct Components {
    all: BTreeMap<String, Component>,
}

#[derive(Debug)]
struct Component {
    spec: Spec,
    running: Option<Program>,
}

impl Components {
    /// Starts a program that has not been there before.
    pub(super) fn add(&mut self, spec: Spec) -> Result<()> {
        let running = Some(spec.start()?);
        let name = spec.name.clone();
        self.all.insert(name, Component { spec, running });
        Ok(())
    }

    /// Fails when a program has ended that nobody has stopped.
    pub(super) fn check_running(&mut self) -> Result<()> {
        let mut running = self.all.values_mut().filter_map(|one| one.running.as_mut());
        running.try_for_each(Program::check_running)
    }

    /// The end of a program's log.
    pub(super) fn tail(&self, name: &str) -> String {
        self.all
            .get(name)
            .and_then(|one| one.running.as_ref())
            .map_or_else(String::new, |program| program.tail(20))
    }

    /// Obeys a line: a verb and a program's name.
    pub(super) async fn obey(&mut self, order: &str) -> Result<()> {
        let (verb, name) = order
            .trim()
            .split_once(' ')
            .context("an order is a verb and a name")?;
        let Some(component) = self.all.get_mut(name) else {
            let names: Vec<&str> = self.all.keys().map(String::as_str).collect();
            bail!("{name} is none of {}", names.join(", "));
        };
        match verb {
            "start" => component.start(),
            "stop" => component.stop().await,
            "kill" => component.take()?.kill(),
            "freeze" => component.running()?.signal(Signal::STOP),
            "thaw" => component.running()?.signal(Signal::CONT),
            _ => bail!("{verb} is none of start, stop, kill, freeze, thaw"),
        }
    }
}

impl Component {
    fn start(&mut self) -> Result<()> {
        if let Some(program) = &mut self.running
            && program.check_running().is_ok()
        {
            bail!("it is running");
        }
        self.running = Some(self.spec.start()?);
        Ok(())
    }

    async fn stop(&mut self) -> Result<()> {
        let mut program = self.take()?;
        program.signal(Signal::TERM)?;
        // A frozen one hears it when it goes on.
        program.signal(Signal::CONT)?;
        let asked = Instant::now();
        while program.check_running().is_ok() {
            ensure!(asked.elapsed() < STOP, "it does not end within {STOP:?}");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Program> {
        let program = self.running.as_mut().context("it is not running")?;
        program.check_running()?;
        Ok(program)
    }

    fn take(&mut self) -> Result<Program> {
        self.running()?;
        self.running.take().context("it is not running")
    }
}
