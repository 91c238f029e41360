//! An API server for tests: answers in memory, misbehaves on demand, and refuses what `permissions()` does not list.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    /// With the subresource after a slash.
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Seen {
    /// For example `list networking.k8s.io ingresses shop/web`.
    pub(crate) fn text(&self) -> String {
        let Self {
            verb,
            resource,
            namespace,
            name,
            ..
        } = self;
        format!("{verb} {resource} {namespace}/{name}")
    }

    async fn of(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let (group, rest) = match path.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, _version, rest @ ..] => (*group, rest),
            other => panic!("a path of no API: {other:?}"),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name) = match rest {
            [resource] => ((*resource).to_owned(), ""),
            [resource, name] => ((*resource).to_owned(), *name),
            [resource, name, subresource] => (format!("{resource}/{subresource}"), *name),
            other => panic!("a path of no resource: {other:?}"),
        };
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let verb = match (parts.method.as_str(), name.is_empty()) {
            ("GET", true) if query.contains("watch=true") => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            other => panic!("an unexpected request: {other:?}"),
        };
        Self {
            verb,
            group: group.to_owned(),
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            query,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }

    fn is_permitted(&self) -> bool {
        crate::permissions().iter().any(|permission| {
            permission.group == self.group
                && permission.resource == self.resource
                && permission.verbs.contains(&self.verb)
        })
    }
}

/// An answer.
pub(crate) enum Reply {
    /// A whole answer.
    Json(u16, Value),
    /// A refusal, as the API server words it.
    Refuse(u16),
    /// Text that is not what was asked for.
    Text(u16, &'static str),
    /// No answer at all.
    Hang,
    /// The header and a part of the body, then nothing more.
    HangAfter(&'static str),
    /// One line per event; then the connection is closed.
    Events(Vec<Value>),
    /// One line per event for as long as the sender lives.
    Follow(mpsc::UnboundedReceiver<Value>),
    /// As if nobody was there.
    Disconnect,
}

/// The body of a refusal.
pub(crate) fn status(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": format!("refused with {code}"),
    })
}

/// Requests in the order of their arrival.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// Every request as text.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.all().iter().map(Seen::text).collect()
    }

    /// How many requests had this verb and resource.
    pub(crate) fn count(&self, verb: &str, resource: &str) -> usize {
        let is = |seen: &&Seen| seen.verb == verb && seen.resource == resource;
        self.all().iter().filter(is).count()
    }
}

/// A client of a server that answers as `answer` says.
pub(crate) fn client(mut answer: impl FnMut(&Seen) -> Reply + Send + 'static) -> (Client, Log) {
    let log = Log::default();
    let ours = log.clone();
    let answer = Arc::new(Mutex::new(move |seen: &Seen| {
        if seen.is_permitted() {
            answer(seen)
        } else {
            Reply::Refuse(403)
        }
    }));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (log, answer) = (ours.clone(), Arc::clone(&answer));
        async move {
            let seen = Seen::of(request).await;
            log.0.lock().unwrap().push(seen.clone());
            let reply = (answer.lock().unwrap())(&seen);
            respond(reply).await
        }
    });
    (Client::new(service, "default"), log)
}

type Answer = UnsyncBoxBody<Bytes, Infallible>;

async fn respond(reply: Reply) -> Result<Response<Answer>, tower::BoxError> {
    let whole = |code: u16, text: String| {
        Response::builder()
            .status(code)
            .body(Full::new(Bytes::from(text)).boxed_unsync())
    };
    Ok(match reply {
        Reply::Json(code, value) => whole(code, value.to_string())?,
        Reply::Refuse(code) => whole(code, status(code).to_string())?,
        Reply::Text(code, text) => whole(code, text.to_owned())?,
        Reply::Hang => std::future::pending().await,
        Reply::HangAfter(text) => {
            let part = futures::stream::iter([Value::String(text.to_owned())]);
            Response::new(lines(part.chain(futures::stream::pending())))
        }
        Reply::Events(events) => Response::new(lines(futures::stream::iter(events))),
        Reply::Follow(events) => {
            let events = futures::stream::unfold(events, |mut events| async {
                events.recv().await.map(|event| (event, events))
            });
            Response::new(lines(events))
        }
        Reply::Disconnect => return Err("connection refused".into()),
    })
}

fn lines(events: impl futures::Stream<Item = Value> + Send + 'static) -> Answer {
    let frames = events.map(|event| {
        // A text is a part of an answer, as it is.
        let part = event.as_str().map(str::to_owned);
        let text = part.unwrap_or_else(|| format!("{event}\n"));
        Ok(Frame::data(Bytes::from(text)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A server that keeps objects and tells watches of them.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    version: u64,
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    watches: Vec<(String, String, mpsc::UnboundedSender<Value>)>,
    /// Answers to give first, by verb and resource.
    faults: BTreeMap<(&'static str, &'static str), VecDeque<Reply>>,
}

impl Store {
    pub(crate) fn client(&self) -> (Client, Log) {
        let store = self.clone();
        client(move |seen| store.answer(seen))
    }

    /// Lets the next request of this kind fail.
    pub(crate) fn fault(&self, verb: &'static str, resource: &'static str, reply: Reply) {
        let mut stored = self.0.lock().unwrap();
        stored
            .faults
            .entry((verb, resource))
            .or_default()
            .push_back(reply);
    }

    /// Are there answers left that [`Store::fault`] has put there?
    pub(crate) fn has_faults(&self) -> bool {
        self.0
            .lock()
            .unwrap()
            .faults
            .values()
            .any(|replies| !replies.is_empty())
    }

    /// Stores an object and returns its version.
    pub(crate) fn put(&self, resource: &str, namespace: &str, name: &str, object: Value) -> u64 {
        self.change(resource, namespace, name, Some(object))
    }

    /// Removes an object and returns the version of that.
    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) -> u64 {
        self.change(resource, namespace, name, None)
    }

    fn change(&self, resource: &str, namespace: &str, name: &str, object: Option<Value>) -> u64 {
        let mut stored = self.0.lock().unwrap();
        stored.version += 1;
        let version = stored.version;
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let (kind, mut value) = match object {
            Some(mut object) => {
                object["metadata"]["name"] = json!(name);
                object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
                if !namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(namespace);
                }
                ("MODIFIED", object)
            }
            None => ("DELETED", stored.objects.remove(&key).unwrap()),
        };
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        if kind == "MODIFIED" {
            stored.objects.insert(key, value.clone());
        }
        let event = json!({"type": kind, "object": value});
        stored.watches.retain(|(of, in_namespace, sender)| {
            let told = of == resource && (in_namespace.is_empty() || in_namespace == namespace);
            !told || sender.send(event.clone()).is_ok()
        });
        version
    }

    /// Sends an event of the caller's making to the watches of a resource.
    pub(crate) fn tell(&self, resource: &str, event: &Value) {
        for (of, _, sender) in &self.0.lock().unwrap().watches {
            if of == resource {
                let _ = sender.send(event.clone());
            }
        }
    }

    /// Changes an object without telling any watch, as if the connections had been lost just before.
    pub(crate) fn remove_unseen(&self, resource: &str, namespace: &str, name: &str) {
        self.close_watches(resource);
        self.remove(resource, namespace, name);
    }

    /// Ends the watches of a resource.
    pub(crate) fn close_watches(&self, resource: &str) {
        self.0
            .lock()
            .unwrap()
            .watches
            .retain(|(of, ..)| of != resource);
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().unwrap().objects.get(&key).cloned()
    }

    /// Answers as the API server does.
    pub(crate) fn answer(&self, seen: &Seen) -> Reply {
        let mut stored = self.0.lock().unwrap();
        let fault = stored
            .faults
            .iter_mut()
            .find(|((verb, resource), _)| *verb == seen.verb && *resource == seen.resource)
            .and_then(|(_, replies)| replies.pop_front());
        if let Some(reply) = fault {
            return reply;
        }
        let resource = seen.resource.trim_end_matches("/status").to_owned();
        let key = (resource.clone(), seen.namespace.clone(), seen.name.clone());
        match seen.verb {
            "list" => {
                let items: Vec<Value> = stored
                    .objects
                    .iter()
                    .filter(|((of, namespace, _), _)| {
                        *of == resource
                            && (seen.namespace.is_empty() || *namespace == seen.namespace)
                    })
                    .map(|(_, object)| object.clone())
                    .collect();
                let version = stored.version.max(1).to_string();
                Reply::Json(
                    200,
                    json!({"metadata": {"resourceVersion": version}, "items": items}),
                )
            }
            "watch" => {
                let (sender, receiver) = mpsc::unbounded_channel();
                stored
                    .watches
                    .push((resource, seen.namespace.clone(), sender));
                Reply::Follow(receiver)
            }
            "get" => stored
                .objects
                .get(&key)
                .map_or(Reply::Refuse(404), |object| {
                    Reply::Json(200, object.clone())
                }),
            "create" => {
                let name = seen.body["metadata"]["name"].as_str().unwrap().to_owned();
                let key = (key.0, key.1, name.clone());
                if stored.objects.contains_key(&key) {
                    return Reply::Refuse(409);
                }
                drop(stored);
                self.put(&resource, &seen.namespace, &name, seen.body.clone());
                Reply::Json(201, self.get(&resource, &seen.namespace, &name).unwrap())
            }
            "update" | "patch" => {
                let Some(before) = stored.objects.get(&key).cloned() else {
                    return Reply::Refuse(404);
                };
                let given = &seen.body["metadata"]["resourceVersion"];
                if !given.is_null() && *given != before["metadata"]["resourceVersion"] {
                    return Reply::Refuse(409);
                }
                drop(stored);
                let mut after = before;
                if seen.verb == "update" {
                    after = seen.body.clone();
                } else {
                    merge(&mut after, &seen.body);
                }
                self.put(&resource, &seen.namespace, &seen.name, after);
                Reply::Json(
                    200,
                    self.get(&resource, &seen.namespace, &seen.name).unwrap(),
                )
            }
            other => panic!("an unexpected verb: {other}"),
        }
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}
