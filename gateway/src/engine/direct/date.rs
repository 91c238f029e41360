//! The `Date` field.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

thread_local! {
    /// The field of a second: nearly always the one that is asked for again.
    static FIELD: RefCell<(Duration, String)> = const { RefCell::new((Duration::MAX, String::new())) };
}

/// Appends the field for this point in time.
pub(super) fn write(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = Duration::from_secs(since.as_secs());
    FIELD.with_borrow_mut(|(known, field)| {
        if *known != second {
            *known = second;
            field.clear();
            // Writing into memory does not fail.
            let _ = write!(
                field,
                "Date: {}\r\n",
                httpdate::HttpDate::from(UNIX_EPOCH + second)
            );
        }
        out.extend_from_slice(field.as_bytes());
    });
}

thread_local! {
    /// The same as a value.
    static VALUE: RefCell<(Duration, HeaderValue)> =
        const { RefCell::new((Duration::MAX, HeaderValue::from_static(""))) };
}

/// The value of the field for this point in time.
pub(super) fn value(time: SystemTime) -> HeaderValue {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = Duration::from_secs(since.as_secs());
    VALUE.with_borrow_mut(|(known, value)| {
        if *known != second {
            let text = httpdate::HttpDate::from(UNIX_EPOCH + second).to_string();
            if let Ok(date) = HeaderValue::try_from(text) {
                (*known, *value) = (second, date);
            }
        }
        value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own() {
        let mut out = Vec::new();
        for millis in [784_111_777_000, 784_111_777_999, 784_111_778_000] {
            write(&mut out, UNIX_EPOCH + Duration::from_millis(millis));
        }
        assert_eq!(
            value(UNIX_EPOCH + Duration::from_millis(784_111_778_999)),
            "Sun, 06 Nov 1994 08:49:38 GMT"
        );
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
        );
    }
}
