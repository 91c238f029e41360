//! The backends of a request as ingress-nginx names them.

use std::fmt::{self, Display};

use model::BackendId;
use table::CompiledAction;

use crate::context::RequestContext;

/// The backend of the path, and the canary that took its place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    pub(crate) main: Option<Named<'a>>,
    pub(crate) canary: Option<Named<'a>>,
}

/// A backend, shown as `namespace-service-port`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a>(&'a BackendId);

impl<'a> Named<'a> {
    /// The name of its Service.
    pub(crate) fn service(self) -> &'a str {
        &self.0.service
    }

    /// What its name is put together from, with `-` in between.
    pub(crate) fn parts(self) -> [&'a str; 3] {
        [&self.0.namespace, &self.0.service, self.port()]
    }

    /// Its port. What follows a plus sign tells backends of one port apart.
    pub(crate) fn port(self) -> &'a str {
        self.0.port.split('+').next().unwrap_or_default()
    }
}

impl Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [namespace, service, port] = self.parts();
        write!(f, "{namespace}-{service}-{port}")
    }
}

impl<'a> Asked<'a> {
    /// Those of this request. Also before one is chosen, and where none ever is.
    pub(crate) fn by(context: &'a RequestContext) -> Self {
        let Some(route) = &context.route else {
            return Self::default();
        };
        let CompiledAction::Forward(targets) = &route.action else {
            return Self::default();
        };
        let chosen = context.target.as_ref();
        let options = route.options.as_ref();
        let is_canary = chosen.is_some_and(|chosen| {
            let canaries = options.map(|options| options.canaries.iter());
            canaries
                .into_iter()
                .flatten()
                .any(|canary| canary.backend == chosen.slot)
        });
        let is_main =
            |chosen: &&crate::context::Target| targets.iter().any(|(slot, _)| slot == chosen.slot);
        let first = || {
            let (slot, _) = targets.iter().next()?;
            Some(&context.table.backend(slot)?.id)
        };
        Self {
            main: chosen
                .filter(is_main)
                .map(|chosen| &chosen.backend.id)
                .or_else(first)
                .map(Named),
            canary: chosen
                .filter(|_| is_canary)
                .map(|chosen| Named(&chosen.backend.id)),
        }
    }
}
