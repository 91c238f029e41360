//! Header fields as Pingora stores them: next to each name there is its spelling on the wire.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::phases::fields::Fields;

/// Fields of a request.
pub(super) struct RequestFields<'a>(pub(super) &'a mut RequestHeader);

/// Fields of a response.
pub(super) struct ResponseFields<'a>(pub(super) &'a mut ResponseHeader);

// Pingora's methods fail for names that are not valid, and for more than 32,768 fields. Neither can happen: names are
// constants or have been compiled, and the number of fields is limited.
macro_rules! fields {
    ($type:ident) => {
        impl Fields for $type<'_> {
            fn map(&self) -> &HeaderMap {
                &self.0.headers
            }

            fn remove(&mut self, name: &HeaderName) {
                self.0.remove_header(name);
            }

            fn set(&mut self, name: &'static str, value: HeaderValue) {
                let _ = self.0.insert_header(name, value);
            }

            fn replace(&mut self, name: &HeaderName, value: HeaderValue) {
                let _ = self.0.insert_header(name, value);
            }

            fn append(&mut self, name: &HeaderName, value: HeaderValue) {
                let _ = self.0.append_header(name, value);
            }
        }
    };
}

fields!(RequestFields);
fields!(ResponseFields);
