//! Reads what a report needs from a cluster. Nothing is written.

use std::path::PathBuf;
use std::time::Duration;

use crds::{ReferenceGrant, RoutePolicy};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::runtime;
use translate::{Change, NamespacedName, Object, Settings, Translator};

use super::{Inventory, MigrateError};
use crate::watch::kinds::Kind;

/// How long to wait for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// How many objects are asked for at once.
const PAGE: u32 = 500;

/// Which cluster.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kubeconfig: Option<PathBuf>,
    pub(super) context: Option<String>,
}

/// Reads the objects that decide what becomes of Ingresses. Of Secrets only those that Ingresses name are read.
pub(super) fn read(place: &Place, settings: &Settings) -> Result<Inventory, MigrateError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("cannot start", error))?;
    runtime.block_on(async {
        let config = config(place).await?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config)
            .map_err(|error| failed("cannot use the Kubernetes API", error))?;
        let mut reader = Reader {
            client,
            server,
            inventory: Inventory::default(),
        };
        reader.read(settings).await?;
        Ok(reader.inventory)
    })
}

fn failed(what: &str, error: impl std::error::Error) -> MigrateError {
    MigrateError::Cluster {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}

async fn config(place: &Place) -> Result<Config, MigrateError> {
    let file = match &place.kubeconfig {
        Some(file) => Kubeconfig::read_from(file)
            .map_err(|error| failed(&format!("cannot read {}", file.display()), error))?,
        None => Kubeconfig::read().map_err(|error| {
            failed(
                "there is no kubeconfig; name files, or give --kubeconfig FILE",
                error,
            )
        })?,
    };
    let options = KubeConfigOptions {
        context: place.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(file, &options)
        .await
        .map_err(|error| failed("cannot use the kubeconfig", error))?;
    config.connect_timeout = Some(CONNECT);
    Ok(config)
}

struct Reader {
    client: Client,
    server: String,
    inventory: Inventory,
}

impl Reader {
    async fn read(&mut self, settings: &Settings) -> Result<(), MigrateError> {
        let ingresses = self.namespaced::<Ingress>(settings).await?;
        self.add(ingresses);
        match self
            .list::<IngressClass>(&Api::all(self.client.clone()))
            .await
        {
            Ok(classes) => self.add(classes),
            Err(error) => {
                let note = format!(
                    "IngressClasses could not be read ({error}): every Ingress that names class {} is taken for one of ingress-nginx",
                    settings.ingress_class
                );
                self.inventory.notes.push(note);
                let class = crate::watch::directory::implied_class(settings);
                self.inventory.changes.push(Change::Apply(class));
            }
        }
        match self.namespaced::<Service>(settings).await {
            Ok(services) => self.add(services),
            Err(error) => self.inventory.notes.push(format!("Services could not be read ({error}): what is wrong with them is not in this report")),
        }
        self.unless_unknown::<RoutePolicy>(settings).await;
        self.unless_unknown::<ReferenceGrant>(settings).await;
        for name in settings.configmaps() {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &name.namespace);
            match api.get_opt(&name.name).await {
                Ok(Some(object)) => self.add(vec![object]),
                Ok(None) => {
                    let note = format!("ConfigMap {name} does not exist; the defaults apply");
                    self.inventory.notes.push(note);
                }
                Err(error) => {
                    let note = format!("ConfigMap {name} could not be read ({error})");
                    self.inventory.notes.push(note);
                }
            }
        }
        if settings.configmap.is_none() {
            self.inventory.notes.push(
                "the ConfigMap of the controller is not in this report: give --configmap NS/NAME"
                    .to_owned(),
            );
        }
        self.secrets(settings).await;
        Ok(())
    }

    /// Those that Ingresses name.
    async fn secrets(&mut self, settings: &Settings) {
        let mut translator = Translator::new(settings.clone());
        translator.apply(self.inventory.changes.clone());
        let mut unread: Vec<NamespacedName> = Vec::new();
        for name in translator.wanted_secrets() {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.namespace);
            match api.get_opt(&name.name).await {
                Ok(Some(mut secret)) => {
                    secret.strip();
                    let object = Object::from(secret);
                    self.inventory.changes.push(Change::Apply(object));
                }
                Ok(None) => {}
                Err(_) => unread.push(name.clone()),
            }
        }
        if let Some(first) = unread.first() {
            let note = format!(
                "{} Secrets could not be read, {first} among them; whether they are good is not checked",
                unread.len()
            );
            self.inventory.notes.push(note);
        }
    }

    /// Objects of a kind that the API server need not know.
    async fn unless_unknown<K>(&mut self, settings: &Settings)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let api: Api<K> = match settings.watch_namespaces.first() {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let one = api.list(&ListParams::default().limit(1)).await;
        if matches!(one, Err(kube::Error::Api(status)) if status.code == 404) {
            return;
        }
        match self.namespaced::<K>(settings).await {
            Ok(objects) => self.add(objects),
            Err(error) => {
                let note = format!("{error}: what they allow is not in this report");
                self.inventory.notes.push(note);
            }
        }
    }

    async fn namespaced<K>(&self, settings: &Settings) -> Result<Vec<K>, MigrateError>
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        if settings.watch_namespaces.is_empty() {
            return self.list(&Api::all(self.client.clone())).await;
        }
        let mut all = Vec::new();
        for namespace in &settings.watch_namespaces {
            let api = Api::namespaced(self.client.clone(), namespace);
            all.extend(self.list(&api).await?);
        }
        Ok(all)
    }

    async fn list<K: Kind>(&self, api: &Api<K>) -> Result<Vec<K>, MigrateError> {
        let mut all = Vec::new();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&parameters).await.map_err(|error| {
                failed(
                    &format!("cannot list objects of kind {} at {}", K::NAME, self.server),
                    error,
                )
            })?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => parameters = parameters.continue_token(&next),
                None => return Ok(all),
            }
        }
    }

    fn add<K: Kind>(&mut self, objects: Vec<K>) {
        for mut object in objects {
            object.strip();
            self.inventory.changes.push(Change::Apply(object.object()));
        }
    }
}
