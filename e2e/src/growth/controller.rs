//! The controllers that are compared, each a process at the same API server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::cluster::Access;
use crate::compare::usage::{self, Usage};
use crate::lockgate::{Installation, Lockgate};
use crate::process::Program;

use super::objects::CLASS;

/// Where Traefik listens.
const TRAEFIK: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 90));

/// Which one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Lockgate,
    Traefik,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lockgate => "Lockgate",
            Self::Traefik => "Traefik",
        }
    }

    /// What the `IngressClass` has to say, so that this one and no other looks at the Ingresses.
    pub(super) fn class(self) -> String {
        let controller = match self {
            Self::Lockgate => "lockgate.dev/ingress-controller",
            Self::Traefik => "traefik.io/ingress-controller",
        };
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": CLASS}, "spec": {"controller": controller},
        })
        .to_string()
    }
}

/// A running one.
pub(super) enum Controller {
    Lockgate(Lockgate),
    Traefik(Program),
}

impl Controller {
    /// Starts it; it has read nothing yet.
    pub(super) async fn start(
        kind: Kind,
        access: &Access,
        installation: &Installation,
        traefik: Option<&Path>,
        round: usize,
    ) -> Result<Option<Self>> {
        let pod = format!("growth-{round}");
        match (kind, traefik) {
            (Kind::Lockgate, _) => {
                let flags = [("--access-log", "off"), ("--ingress-class", CLASS)];
                let lockgate = installation.launch(&pod, &flags).await?;
                Ok(Some(Self::Lockgate(lockgate)))
            }
            (Kind::Traefik, None) => Ok(None),
            (Kind::Traefik, Some(program)) => {
                let kubeconfig = access.folder.join("admin.kubeconfig").display().to_string();
                let arguments = [
                    format!("--entrypoints.web.address={TRAEFIK}:80"),
                    format!("--entrypoints.websecure.address={TRAEFIK}:443"),
                    "--entrypoints.websecure.http.tls=true".to_owned(),
                    "--providers.kubernetesingress=true".to_owned(),
                    format!("--providers.kubernetesingress.ingressclass={CLASS}"),
                    "--global.checknewversion=false".to_owned(),
                    "--global.sendanonymoususage=false".to_owned(),
                ];
                let environment = [("KUBECONFIG", kubeconfig.as_str())];
                let log = access.folder.join(format!("traefik-{round}.log"));
                let program = Program::start("Traefik", program, arguments, &environment, log)?;
                Ok(Some(Self::Traefik(program)))
            }
        }
    }

    /// Where it listens, on ports 80 and 443.
    pub(super) fn address(&self) -> IpAddr {
        match self {
            Self::Lockgate(lockgate) => lockgate.address,
            Self::Traefik(_) => TRAEFIK,
        }
    }

    /// What it has used until now.
    pub(super) fn usage(&self) -> Result<Usage> {
        usage::of_process(match self {
            Self::Lockgate(lockgate) => lockgate.id(),
            Self::Traefik(program) => program.id(),
        })
    }

    /// Fails, with the end of its log, when it has ended.
    pub(super) fn check_running(&mut self) -> Result<()> {
        match self {
            Self::Lockgate(lockgate) => lockgate.check_running(),
            Self::Traefik(program) => program.check_running(),
        }
    }

    /// Ends it.
    pub(super) async fn stop(self) -> Result<()> {
        match self {
            Self::Lockgate(lockgate) => lockgate.stop().await,
            Self::Traefik(mut program) => program.kill(),
        }
    }
}
