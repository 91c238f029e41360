//! The answer to what is not a valid request, whichever engine meets it.

/// The answer. It is written as it stands.
pub(super) const PAGE: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 16\r\n\
    cache-control: no-store\r\n\
    connection: close\r\n\r\n\
    400 Bad Request\n";
/// Length of the body in it.
pub(super) const PAGE_BODY: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_length_that_it_says() {
        let text = std::str::from_utf8(PAGE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.len(), PAGE_BODY);
        assert!(head.contains(&format!("content-length: {PAGE_BODY}\r\n")));
        assert!(head.lines().all(|line| !line.starts_with(' ')), "{head}");
    }
}
