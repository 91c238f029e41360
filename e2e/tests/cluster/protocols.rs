//! What is spoken with the client and with the pods.

use anyhow::{Context as _, Result, bail, ensure};
use e2e::client::{Client, Reply, Version};
use e2e::space::{Space, ingress_manifest, merged};
use http::Request;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A space with a pod behind a host with a certificate, and that host.
async fn site(name: &str) -> Result<(Space, String)> {
    let space = Space::new(name).await?;
    let host = space.host("www");
    space.origin("web", 1).await?;
    let identity = space.authority.site(&[&host])?;
    space.certificate("web-tls", &identity).await?;
    Ok((space, host))
}

/// Applies the site's Ingress, plain HTTP included, with a protocol for the pods.
async fn expose(space: &Space, host: &str, protocol: &str, port: &str) -> Result<()> {
    let patch = json!({
        "metadata": {"annotations": {
            "nginx.ingress.kubernetes.io/backend-protocol": protocol,
            "nginx.ingress.kubernetes.io/ssl-redirect": "false",
        }},
        "spec": {"tls": [{"hosts": [host], "secretName": "web-tls"}]},
    });
    let mut ingress = merged(ingress_manifest("web", host, "web"), &patch);
    let backend = "/spec/rules/0/http/paths/0/backend/service/port";
    *ingress.pointer_mut(backend).context("no backend")? = json!({"name": port});
    space.apply(&ingress.to_string()).await?;
    space.answers(&format!("https://{host}/"), 200).await?;
    space
        .answers(&format!("http://{host}/"), 200)
        .await
        .map(drop)
}

#[tokio::test]
async fn clients_speak_http_1_and_2_with_tls_and_without() -> Result<()> {
    let (space, host) = site("protocols").await?;
    expose(&space, &host, "HTTP", "http").await?;
    for scheme in ["http", "https"] {
        for (version, spoken) in [
            (Version::Http1, http::Version::HTTP_11),
            (Version::Http2, http::Version::HTTP_2),
        ] {
            let what = format!("{scheme} {version:?}");
            let mut connection = space
                .client()?
                .speaking(version)?
                .connect(&format!("{scheme}://{host}/"))
                .await?;
            for path in ["/first?a=b", "/second", "/third"] {
                let reply = connection.get(&format!("{scheme}://{host}{path}")).await?;
                ensure!(reply.status == 200, "{what}: {}", reply.status);
                ensure!(reply.version == spoken, "{what}: {:?}", reply.version);
                let seen = reply.json()?;
                ensure!(
                    seen["protocol"] == "HTTP/1.1",
                    "{what}: to the pod {seen:#}"
                );
                ensure!(seen["host"] == json!(host), "{what}: {seen:#}");
                let forwarded = seen.pointer("/headers/x-forwarded-proto/0");
                ensure!(forwarded == Some(&json!(scheme)), "{what}: {seen:#}");
            }
            // A body in either direction.
            let url = format!("{scheme}://{host}/echo?size=200000");
            let body = Bytes::from(vec![b'a'; 300_000]);
            let reply = connection.send(Request::post(url).body(body)?).await?;
            ensure!(
                reply.bytes.len() == 200_000,
                "{what}: {}",
                reply.bytes.len()
            );
        }
    }
    space.finish().await
}

#[tokio::test]
async fn pods_are_spoken_to_by_https_where_the_ingress_says_so() -> Result<()> {
    let (space, host) = site("protocols-https").await?;
    expose(&space, &host, "HTTPS", "https").await?;
    for version in [Version::Http1, Version::Http2] {
        let client = space.client()?.speaking(version)?;
        let reply = client.get(&format!("https://{host}/")).await?;
        let seen = reply.json()?;
        let tls = seen.pointer("/tls/version").and_then(Value::as_str);
        ensure!(tls.is_some(), "{version:?}: no TLS to the pod: {seen:#}");
    }
    space.finish().await
}

#[tokio::test]
async fn websockets_pass_with_tls_and_without() -> Result<()> {
    let (space, host) = site("protocols-websocket").await?;
    expose(&space, &host, "HTTP", "http").await?;
    for scheme in ["http", "https"] {
        echo(&space.client()?, &format!("{scheme}://{host}/ws"), &host)
            .await
            .with_context(|| scheme.to_owned())?;
    }
    space.finish().await
}

/// Opens a WebSocket (RFC 6455), sends two messages and expects each one back.
async fn echo(client: &Client, url: &str, host: &str) -> Result<()> {
    let mut stream = client.stream(url).await?;
    // Key and answer are those of the RFC's example.
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 101"), "{head}");
    ensure!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    for message in ["hello", "are you still there?"] {
        let length = u8::try_from(message.len())?;
        let mask = [7, 11, 13, 17];
        let masked = message.bytes().zip(mask.into_iter().cycle());
        // A final frame of text, masked as a client's has to be.
        let mut frame = vec![0x81, 0x80 | length];
        frame.extend(mask);
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        stream.write_all(&frame).await?;
        let head = [stream.read_u8().await?, stream.read_u8().await?];
        ensure!(head == [0x81, length], "{head:?}");
        let mut back = vec![0; message.len()];
        stream.read_exact(&mut back).await?;
        ensure!(back == message.as_bytes(), "{back:?}");
    }
    Ok(())
}

#[tokio::test]
async fn grpc_calls_and_their_trailers_pass() -> Result<()> {
    let (space, host) = site("protocols-grpc").await?;
    expose(&space, &host, "GRPC", "http").await?;
    for scheme in ["http", "https"] {
        let client = space.client()?.speaking(Version::Http2)?;
        let base = format!("{scheme}://{host}/lockgate.origin.Origin");

        let one = call(&client, &format!("{base}/Echo"), &ask("hello", 0, 0)).await?;
        let messages = messages(&one)?;
        ensure!(messages.len() == 1, "{scheme}: {} answers", messages.len());
        ensure!(contains(&messages[0], b"hello"), "{scheme}: {:?}", one.body);
        ensure!(status(&one) == "0", "{scheme}: {:?}", one.trailers);

        let many = call(&client, &format!("{base}/Repeat"), &ask("again", 5, 0)).await?;
        let count = self::messages(&many)?.len();
        ensure!(count == 5, "{scheme}: {count} answers");
        ensure!(status(&many) == "0", "{scheme}: {:?}", many.trailers);

        // 5 is NOT_FOUND: a failure that the application reports, in trailers, with HTTP status 200.
        let failed = call(&client, &format!("{base}/Echo"), &ask("no", 0, 5)).await?;
        ensure!(failed.status == 200, "{scheme}: {}", failed.status);
        ensure!(status(&failed) == "5", "{scheme}: {:?}", failed.trailers);
    }
    space.finish().await
}

/// The message `Ask` of the origin's service: `text`, `count` and `status`.
fn ask(text: &str, count: u8, status: u8) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    // Field 1, of bytes; fields 2 and 4, of numbers below 128.
    let mut message = [&[0x0a, length], text.as_bytes()].concat();
    for (tag, value) in [(0x10, count), (0x20, status)] {
        if value > 0 {
            message.extend([tag, value]);
        }
    }
    message
}

async fn call(client: &Client, url: &str, message: &[u8]) -> Result<Reply> {
    // Not compressed, then the length in four bytes.
    let length = u32::try_from(message.len())?.to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    let request = Request::post(url)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Bytes::from(body))?;
    let reply = client.send(request).await?;
    ensure!(reply.status == 200, "{url}: {}", reply.status);
    Ok(reply)
}

/// The status of the call, which is in the trailers, or in the header where there is no message.
fn status(reply: &Reply) -> String {
    let status = reply.trailers.get("grpc-status");
    let status = status.or_else(|| reply.headers.get("grpc-status"));
    let text = status.and_then(|status| status.to_str().ok());
    text.unwrap_or("none").to_owned()
}

fn messages(reply: &Reply) -> Result<Vec<Vec<u8>>> {
    let mut rest = reply.bytes.as_ref();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let Some((&[0, a, b, c, d], body)) = rest.split_first_chunk() else {
            bail!("half a message: {rest:?}");
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
        let (message, after) = body.split_at_checked(length).context("half a message")?;
        messages.push(message.to_vec());
        rest = after;
    }
    Ok(messages)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
