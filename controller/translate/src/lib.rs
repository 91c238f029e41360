//! Kubernetes objects in, routing model and problems out.
//!
//! Pure: no clock, no network, no files. [`translate`] does it from nothing, [`Translator`] remembers what it did and
//! works in proportion to what changed; both give the same result. Whatever the input is, there is always a model:
//! a bad object becomes a [`Problem`] and harms nothing but itself.
//!
//! ```
//! use translate::{Change, Settings, Translator, manifests};
//!
//! let parsed = manifests::parse(
//!     "
//! apiVersion: networking.k8s.io/v1
//! kind: Ingress
//! metadata: {name: shop, annotations: {kubernetes.io/ingress.class: lockgate}}
//! spec:
//!   rules:
//!   - host: shop.test
//!     http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
//! ",
//! );
//! let mut translator = Translator::new(Settings::default());
//! let outcome = translator.apply(parsed.objects.into_iter().map(Change::Apply));
//! assert_eq!(outcome.changes.hosts.len(), 1);
//! let (object, problem) = translator.report().problems().next().unwrap();
//! assert_eq!(object.to_string(), "Ingress default/shop");
//! assert_eq!(
//!     problem.message,
//!     "spec.rules[0].http.paths[0].backend: Service default/web does not exist; requests to it are answered with 503"
//! );
//! ```

mod access;
pub mod annotation;
mod backend_tls;
mod class;
mod clients;
mod configmap;
mod conflict;
mod external;
mod few;
mod headers;
mod health;
mod ingress;
mod locality;
pub mod manifests;
mod names;
mod object;
mod packed;
mod permit;
mod policy;
mod report;
mod route;
mod secret;
mod service;
pub mod setting;
mod settings;
mod snapshot;
mod stream;
mod tls_names;
mod translator;
mod value;

pub use locality::Locality;
pub use names::{InvalidName, NamespacedName};
pub use object::{Change, Object, kinds};
pub use packed::{Packed, PackedObject};
pub use policy::{merge, replacement};
pub use report::{Problem, Reason, Report, RevocationTerm, Severity};
pub use secret::{SecretFault, fingerprint};
pub use settings::{Compat, Settings};
pub use snapshot::Snapshot;
pub use translator::{Outcome, Preview, Previewed, Translation, Translator, translate};
