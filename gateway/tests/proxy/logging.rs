//! The access log.

use std::fmt::Write as _;

use gateway::LogFormat;

use crate::support::{Site, echo, model, to};

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
    crate::support::eventually("it is logged", || log.text().ends_with('\n')).await;
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
