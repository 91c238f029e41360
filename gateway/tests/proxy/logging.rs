//! The access log.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use gateway::{LogFormat, NginxLabels};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use model::{Canary, Filter, HttpsRedirect, LogEscape, RoutingModel};
use tokio::net::TcpStream;

use crate::support::{
    Site, add_backend, add_route, add_route_with, backend_id, counted, echo, eventually, forward,
    model, nobody, soon, to,
};

#[tokio::test]
async fn a_line_has_everything_about_a_request() {
    let address = echo("web").await;
    let site = Site::start(to(address));
    let fields = [
        ("user-agent", "te\"st\\\t\u{e9}"),
        ("referer", "http://ref.test/?a\"b"),
        ("x-forwarded-for", "6.6.6.6\", \"evil\":\""),
        ("x-request-id", "id-1"),
    ];
    let mut request =
        "GET /p?q='1' HTTP/1.1\r\nHost: A.test:80\r\nConnection: close\r\n".to_owned();
    for (name, value) in fields {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    site.raw(request + "\r\n").await;
    let line = site.log.of("/p").await;
    for (name, want) in [
        ("remote_addr", "127.0.0.1"),
        ("x_forwarded_for", "6.6.6.6\", \"evil\":\""),
        ("request_id", "id-1"),
        ("method", "GET"),
        ("host", "A.test:80"),
        ("query", "q='1'"),
        ("protocol", "HTTP/1.1"),
        ("scheme", "http"),
        ("upstream_addr", &address.to_string()),
        ("namespace", "shop"),
        ("ingress", "web"),
        ("service", "web"),
        ("service_port", "80"),
        ("rule_path", "/"),
        ("user_agent", "te\"st\\\t\u{e9}"),
        ("referer", "http://ref.test/?a\"b"),
        ("reason", "upstream"),
    ] {
        assert_eq!(line[name], want, "{name}");
    }
    for (name, want) in [("status", 200), ("upstream_status", 200), ("tries", 1)] {
        assert_eq!(line[name], want, "{name}");
    }
    for name in [
        "request_time",
        "upstream_connect_time",
        "upstream_header_time",
        "upstream_response_time",
    ] {
        let seconds = line[name].as_f64().unwrap();
        assert!((0.0..20.0).contains(&seconds), "{name}: {seconds}");
    }
    let time = line["time"].as_str().unwrap();
    assert!(
        time.len() == 24 && time.ends_with('Z') && &time[10..11] == "T",
        "{time}"
    );
    assert!(line.get("evil").is_none() && line.get("tls_version").is_none());
}

#[tokio::test]
async fn the_text_format_is_the_one_of_ingress_nginx() {
    let address = echo("web").await;
    let site = Site::with(to(address), |settings| {
        settings.access_log = Some(LogFormat::Text);
    });
    let fields = [("user-agent", "te\"st"), ("x-request-id", "id-1")];
    let answer = site.get_with("a.test", "/p?q", &fields).await;
    let length = answer.body.len();
    let log = site.log.clone();
    eventually("it is logged", || log.text().ends_with('\n')).await;
    let line = log.text();
    let (before, rest) = line.split_once('[').unwrap();
    assert_eq!(before, "127.0.0.1 - - ");
    let (time, rest) = rest.split_once("] ").unwrap();
    assert!(time.ends_with(" +0000") && time.len() == 26, "{time}");
    let start = format!("\"GET /p?q HTTP/1.1\" 200 {length} \"-\" \"te\\x22st\" ");
    let rest = rest
        .strip_prefix(start.as_str())
        .unwrap_or_else(|| panic!("{line}"));
    let words: Vec<&str> = rest.trim_end().split(' ').collect();
    // Length and time of the request, then the backend.
    assert!(words[0].parse::<u32>().unwrap() > 50, "{line}");
    assert!(words[1].parse::<f64>().is_ok(), "{line}");
    assert_eq!(words[2..4], ["[shop-web-80]", "[]"]);
    assert_eq!(words[4], address.to_string());
    assert_eq!(words[5], length.to_string());
    assert!(words[6].parse::<f64>().is_ok(), "{line}");
    assert_eq!(words[7..], ["200", "id-1"]);
}

/// The first line of the text format that comes of a request for `/p`, without its time and its durations.
async fn text_line(model: RoutingModel, fields: &[(&str, &str)]) -> String {
    let site = Site::with(model, |settings| {
        settings.access_log = Some(LogFormat::Text);
    });
    site.get_with("a.test", "/p", fields).await;
    let log = site.log.clone();
    eventually("it is logged", || log.text().ends_with('\n')).await;
    let line = log.text();
    let (before, rest) = line.trim_end().split_once('[').unwrap();
    let (_, after) = rest.split_once(']').unwrap();
    let is_time = |word: &str| {
        let word = word.trim_end_matches(',');
        word.split_once('.')
            .is_some_and(|(seconds, rest)| seconds.parse::<u32>().is_ok() && rest.len() == 3)
    };
    let words = after.split(' ').map(|word| {
        if is_time(word) {
            word.replace(|c: char| c.is_ascii_digit(), "0")
        } else {
            word.to_owned()
        }
    });
    format!("{before}[]{}", words.collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn a_line_of_text_has_one_value_for_each_try() {
    let (dead, alive) = (nobody(), echo("web").await);
    let mut model = model();
    add_backend(&mut model, "web", &[dead, alive]);
    add_route(&mut model, "*", "/", forward("web"));
    let site = Site::with(model, |settings| {
        settings.access_log = Some(LogFormat::Text);
    });
    let log = site.log.clone();
    // Which endpoint comes first is a matter of chance.
    let mut requests = 0;
    while !log.text().contains(&format!("{dead}, {alive}")) {
        requests += 1;
        assert!(requests < 200, "{}", log.text());
        site.get_with("a.test", "/p", &[("x-request-id", "id-1")])
            .await;
        eventually("it is logged", || log.text().lines().count() == requests).await;
    }
    let text = log.text();
    let line = text.lines().last().unwrap();
    let (_, tail) = line.split_once(&format!("{dead}, {alive} ")).unwrap();
    let words: Vec<&str> = tail.split(' ').collect();
    assert_eq!(words.len(), 7, "{line}");
    assert_eq!(words[0], "0,", "nothing came of the first: {line}");
    assert!(words[1].parse::<u32>().unwrap() > 0, "{line}");
    assert!(words[2].ends_with(',') && words[3].contains('.'), "{line}");
    assert_eq!(words[4..], ["502,", "200", "id-1"], "{line}");
}

#[tokio::test]
async fn a_line_of_text_names_user_canary_and_request() {
    let alice = ("authorization", "Basic YWxpY2U6c2VjcmV0");
    let (web, new) = (echo("web").await, echo("new").await);
    let mut with_canary = to(web);
    add_backend(&mut with_canary, "new", &[new]);
    add_route_with(&mut with_canary, "a.test", "/", forward("web"), |route| {
        route.options.canaries.push(Canary {
            backend: backend_id("new"),
            weight: 100,
            total: 100,
            header: None,
            cookie: None,
        });
    });
    let line = text_line(with_canary, &[alice, ("x-request-id", "id-2")]).await;
    assert!(line.starts_with("127.0.0.1 - alice [] "), "{line}");
    assert!(
        line.contains(&format!("[shop-web-80] [shop-new-80] {new} ")),
        "{line}"
    );

    let line = text_line(model(), &[("x-request-id", "id-3")]).await;
    assert!(line.contains("\"GET /p HTTP/1.1\" 404 "), "{line}");
    assert!(
        line.ends_with("[upstream-default-backend] [] - - - - id-3"),
        "{line}"
    );

    let mut redirected = to(web);
    add_route_with(&mut redirected, "a.test", "/", forward("web"), |route| {
        route.filters.push(Filter::HttpsRedirect(HttpsRedirect {
            status: 308,
            except: Vec::new(),
        }));
    });
    let line = text_line(redirected, &[]).await;
    let (line, id) = line.rsplit_once(' ').unwrap();
    assert!(line.ends_with("[shop-web-80] [] - - - -"), "{line}");
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
}

#[tokio::test]
async fn names_of_ingress_nginx_are_counted_where_somebody_asks_for_them() {
    let address = echo("web").await;
    let site_of = |host: &str, names: Option<NginxLabels>| {
        let mut model = model();
        add_backend(&mut model, "web", &[address]);
        add_route(&mut model, host, "/shop", forward("web"));
        Site::with(model, move |settings| settings.nginx_metrics = names)
    };
    let off = site_of("off.nginx.test", None);
    let on = site_of(
        "on.nginx.test",
        Some(NginxLabels {
            class: "k8s.io/ingress-nginx".to_owned(),
            namespace: "lockgate".to_owned(),
            pod: "lockgate-0".to_owned(),
        }),
    );
    for _ in 0..3 {
        on.get("on.nginx.test", "/shop/1").await;
        off.get("off.nginx.test", "/shop/1").await;
    }
    on.get("nobody.nginx.test", "/").await;
    off.log.of("/shop/1").await;
    on.log.of("/").await;
    let labels = [
        "controller_class=\"k8s.io/ingress-nginx\"",
        "controller_namespace=\"lockgate\"",
        "controller_pod=\"lockgate-0\"",
        "status=\"200\"",
        "method=\"GET\"",
        "path=\"/shop\"",
        "namespace=\"shop\"",
        "ingress=\"web\"",
        "service=\"web\"",
        "canary=\"\"",
        "host=\"on.nginx.test\"",
    ];
    let name = |rest: &str| format!("nginx_ingress_controller_{rest}");
    for (metric, want) in [
        ("requests", 3.0),
        ("request_duration_seconds_count", 3.0),
        ("connect_duration_seconds_count", 3.0),
        ("header_duration_seconds_count", 3.0),
        ("response_duration_seconds_count", 3.0),
        ("request_size_count", 3.0),
        ("response_size_count", 3.0),
        ("bytes_sent_count", 3.0),
    ] {
        assert!(
            (counted(&name(metric), &labels) - want).abs() < 0.1,
            "{metric}"
        );
    }
    for (host, why) in [
        ("off.nginx.test", "nobody asked"),
        ("nobody.nginx.test", "it has no route"),
    ] {
        let host = format!("host=\"{host}\"");
        assert!(counted(&name("requests"), &[&host]) < 0.1, "{why}");
    }
}

fn format(text: &str, escape: LogEscape) -> Arc<model::LogFormat> {
    Arc::new(model::LogFormat {
        text: text.to_owned(),
        escape,
    })
}

#[tokio::test]
async fn a_format_goes_before_the_settings_and_may_change() {
    let mut model = to(echo("web").await);
    let text = "$status|$sent_http_x_origin|$upstream_http_x_origin|$sent_http_nothing|$body_bytes_sent|$bytes_sent|$service_name:$service_port|$geoip_city|$req_id|$sent_http_content_type";
    model.log_format = Some(format(text, LogEscape::Default));
    let mut site = Site::start(model);
    let log = site.log.clone();
    let line = |number: usize| {
        let log = log.clone();
        async move {
            eventually("it is logged", || log.text().lines().count() >= number).await;
            log.text().lines().nth(number - 1).unwrap().to_owned()
        }
    };
    let id = [("x-request-id", "id-1")];
    let answer = site.get_with("a.test", "/p", &id).await;
    let words = line(1).await;
    let words: Vec<&str> = words.split('|').collect();
    let length = answer.body.len();
    assert_eq!(
        words[..5],
        ["200", "web", "web", "-", &length.to_string()],
        "{words:?}"
    );
    let whole: usize = words[5].parse().unwrap();
    assert!(
        (length + 40..length + 400).contains(&whole),
        "with the header section: {words:?}"
    );
    assert_eq!(words[6..9], ["web:80", "-", "id-1"], "{words:?}");

    site.change(|model| {
        let text =
            r#"{"status": $status, "agent": "$http_user_agent", "referer": "$http_referer"}"#;
        model.log_format = Some(format(text, LogEscape::Json));
    });
    site.get_with("a.test", "/p", &[("user-agent", "a\"b\u{e9}")])
        .await;
    let text = line(2).await;
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        parsed,
        serde_json::json!({"status": 200, "agent": "a\"b\u{e9}", "referer": ""})
    );

    // Without a backend there is no response of one.
    site.change(|model| {
        model.hosts.clear();
        let text = "$status|$upstream_http_content_type|$sent_http_content_type|$upstream_status";
        model.log_format = Some(format(text, LogEscape::Default));
    });
    site.get("a.test", "/p").await;
    assert_eq!(line(3).await, "404|-|text/plain; charset=utf-8|-");

    site.change(|model| model.log_format = None);
    site.get("a.test", "/p").await;
    assert!(
        line(4).await.starts_with("{\"time\":"),
        "the settings again"
    );
}

#[tokio::test]
async fn requests_of_one_connection_are_counted() {
    let mut model = to(echo("web").await);
    model.log_format = Some(format(
        "$connection $connection_requests",
        LogEscape::Default,
    ));
    let site = Site::start(model);
    for requests in [2, 1] {
        let stream = TcpStream::connect(site.http).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        for _ in 0..requests {
            sender.ready().await.unwrap();
            let request = Request::get("/p").header("host", "a.test");
            let request = request.body(Full::<Bytes>::default()).unwrap();
            let response = soon(sender.send_request(request)).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    }
    let log = site.log.clone();
    eventually("all are logged", || log.text().lines().count() == 3).await;
    let text = log.text();
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!((lines[0].1, lines[1].1, lines[2].1), ("1", "2", "1"));
    assert_eq!(lines[0].0, lines[1].0, "one connection");
    assert_ne!(lines[0].0, lines[2].0, "another connection");
}

#[tokio::test]
async fn nothing_is_lost_at_the_end() {
    let site = Site::start(model());
    for n in 0..50 {
        site.get("a.test", &format!("/{n}")).await;
    }
    let log = site.log.clone();
    let running = site.running;
    tokio::task::spawn_blocking(move || running.join())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(log.lines().len(), 50);
}

#[tokio::test]
async fn no_log_is_no_log() {
    let site = Site::with(model(), |settings| settings.access_log = None);
    site.get("a.test", "/").await;
    let log = site.log.clone();
    let running = site.running;
    tokio::task::spawn_blocking(move || running.join())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(log.text(), "");
}
