//! What operators see.

use controller::app::MetricsNames;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{self, PATIENCE};
use crate::manifest::{Authority, ingress, ingress_tls, secret, service};
use crate::origin::{Origin, nobody};
use crate::world::World;

#[tokio::test]
async fn health_and_readiness_follow_the_process() {
    let world = World::start_with(Authority::new(), &[], |settings| {
        settings.shutdown_delay = PATIENCE;
    })
    .await;
    assert_eq!(world.admin("/healthz").await.status, 200);
    for path in ["/readyz", "/servingz"] {
        assert_eq!(world.admin(path).await.status, 200, "{path}");
    }
    let (admin, http) = (world.app.admin_address(), world.app.http_addresses()[0]);
    let mut phase = world.app.phase();
    let (hurry, hurried) = tokio::sync::oneshot::channel::<()>();
    let ending = tokio::spawn(world.app.shutdown(async move {
        let _ = hurried.await;
    }));
    phase
        .wait_for(|phase| *phase == controller::Phase::Leaving)
        .await
        .unwrap();
    let answer = client::get(admin, "admin", "/readyz").await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (503, "shutting down\n")
    );
    for path in ["/healthz", "/servingz"] {
        let answer = client::get(admin, "admin", path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    let answer = client::get(http, "a.test", "/").await.unwrap();
    assert_eq!(answer.status, 404, "it still accepts");
    hurry.send(()).unwrap();
    let ended = timeout(PATIENCE, ending).await.unwrap().unwrap();
    assert_eq!(ended, controller::app::Ended::Hurried);
}

#[tokio::test]
async fn the_debug_page_shows_what_is_served_and_no_key() {
    let origin = Origin::start("web").await;
    let authority = Authority::new();
    let pair = authority.sign("shop.test");
    let files = [
        (
            "shop.yaml",
            ingress_tls("shop", "shop.test", "web", "shop-tls"),
        ),
        ("web.yaml", service("web", &[origin.port])),
        ("secret.yaml", secret("shop-tls", &pair)),
        (
            "bad.yaml",
            ingress_tls("bad", "bad.test", "missing", "missing-tls"),
        ),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let world = World::start_with(authority, &files, |_| {}).await;
    world.get_tls("shop.test", "/").await.unwrap();

    let idle = "\"in_flight\": 0";
    let json = world
        .admin_until("/debug/routes", idle, |text| text.contains(idle))
        .await;
    assert_eq!(json.header("content-type"), "application/json");
    let page: serde_json::Value = serde_json::from_str(&json.body).unwrap();
    assert_eq!(page["generation"], world.generation());
    assert_eq!(
        page["hosts"]["shop.test"][0]["action"]["forward"][0][0],
        "test/web:80"
    );
    let endpoint = format!("127.0.0.1:{}", origin.port);
    assert_eq!(
        page["backends"]["test/web:80"]["endpoints"]["addresses"][0]["address"],
        endpoint
    );
    assert!(page["certificates"]["test/shop-tls"]["not_after"].is_i64());
    assert_eq!(page["live"][0]["address"], endpoint);
    assert_eq!(page["live"][0]["in_flight"], 0);
    assert!(!page["problems"].as_array().unwrap().is_empty());

    let table = world.admin("/debug/routes?format=table").await;
    assert!(table.header("content-type").starts_with("text/plain"));
    for want in [
        "shop.test",
        "test/web:80",
        &endpoint,
        "test/shop-tls",
        "Service test/missing",
    ] {
        assert!(table.body.contains(want), "{want} in:\n{}", table.body);
    }
    for body in [&json.body, &table.body] {
        assert!(!body.contains("PRIVATE KEY"));
        let secret_line = pair.key.lines().nth(1).unwrap();
        assert!(!body.contains(secret_line));
    }
}

#[tokio::test]
async fn metrics_follow_what_happens() {
    let origin = Origin::start("web").await;
    let authority = Authority::new();
    let files = [
        (
            "shop.yaml",
            ingress_tls("metered", "metered.test", "web", "metered-tls"),
        ),
        ("web.yaml", service("web", &[origin.port])),
        (
            "secret.yaml",
            secret("metered-tls", &authority.sign("metered.test")),
        ),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut world = World::start_with(authority, &files, |_| {}).await;
    world.get_tls("metered.test", "/").await.unwrap();
    let requests = |text: &str| {
        let lines = text.lines().filter(|line| {
            line.starts_with("lockgate_requests_total{") && line.contains("metered.test")
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    let one = |text: &str| requests(text) == 1;
    let metrics = world.admin_until("/metrics", "one request", one).await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    for want in [
        "lockgate_table_generation ",
        "lockgate_publish_seconds_bucket{",
        "lockgate_build_info{version=",
        "lockgate_certificate_expiry_timestamp_seconds{certificate=\"test/metered-tls\"} ",
        "lockgate_problems{severity=\"error\"} ",
        "lockgate_tls_handshakes_total{",
    ] {
        let found = metrics.body.lines().any(|line| line.starts_with(want));
        assert!(found, "{want} in:\n{}", metrics.body);
    }
    world.get_tls("metered.test", "/").await.unwrap();
    let two = |text: &str| requests(text) == 2;
    world.admin_until("/metrics", "two requests", two).await;

    // A certificate that is gone must not raise an alarm one day.
    world
        .changed(|folder| std::fs::remove_file(folder.join("shop.yaml")).unwrap())
        .await;
    assert!(
        !world
            .admin("/metrics")
            .await
            .body
            .contains("test/metered-tls")
    );
}

#[tokio::test]
async fn the_pages_are_not_reachable_through_the_gateway() {
    let world = World::start(&[]).await;
    for path in [
        "/healthz",
        "/readyz",
        "/servingz",
        "/metrics",
        "/debug/routes",
    ] {
        assert_eq!(world.get("127.0.0.1", path).await.status, 404, "{path}");
    }
    assert_eq!(world.admin("/elsewhere").await.status, 404);
}

#[tokio::test]
async fn only_reading_is_allowed_and_large_headers_are_refused() {
    let world = World::start(&[]).await;
    for (request, want) in [
        (
            format!("{} /healthz HTTP/1.1\r\nhost: a\r\n\r\n", Method::POST),
            "HTTP/1.1 405",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
                "x".repeat(70_000)
            ),
            "HTTP/1.1 431",
        ),
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
    ] {
        let mut stream = TcpStream::connect(world.app.admin_address()).await.unwrap();
        // It may refuse before everything is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut head = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut head))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&head), want);
    }
}

#[tokio::test]
async fn metrics_have_names_of_ingress_nginx_where_that_is_asked_for() {
    let origin = Origin::start("web").await;
    let authority = Authority::new();
    let pair = authority.sign("names.test");
    let files = [
        (
            "names.yaml",
            ingress_tls("names", "names.test", "web", "names-tls"),
        ),
        (
            "orphan.yaml",
            ingress("orphan", "orphan.test", &[("/", "missing")]),
        ),
        ("web.yaml", service("web", &[origin.port])),
        ("secret.yaml", secret("names-tls", &pair)),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let world = World::start_with(authority, &files, |settings| {
        settings.serve.metrics_names = MetricsNames::Nginx;
        settings.translation.controller_name = "k8s.io/ingress-nginx".to_owned();
    })
    .await;
    world.get_tls("names.test", "/").await.unwrap();
    let class = "controller_class=\"k8s.io/ingress-nginx\"";
    let series = |text: &str, name: &str, labels: &[&str]| {
        let name = format!("nginx_ingress_controller_{name}{{");
        let of = |line: &&str| {
            line.starts_with(&name) && labels.iter().all(|label| line.contains(label))
        };
        let line = text.lines().find(of).map(str::to_owned);
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
    };
    let request = [
        class,
        "host=\"names.test\"",
        "path=\"/\"",
        "method=\"GET\"",
        "status=\"200\"",
        "namespace=\"test\"",
        "ingress=\"names\"",
        "service=\"web\"",
        "canary=\"\"",
    ];
    let page = world
        .admin_until("/metrics", "the request", |text| {
            series(text, "requests", &request).is_some()
        })
        .await;
    let text = &page.body;
    let within = [&request[..], &["le=\"10\""]].concat();
    assert_eq!(
        series(text, "request_duration_seconds_bucket", &within),
        Some(1.0)
    );
    let of_host = [
        "host=\"names.test\"",
        "secret_name=\"names-tls\"",
        "class=\"k8s",
    ];
    let end = series(text, "ssl_expire_time_seconds", &of_host).unwrap();
    assert!(end > 1_700_000_000.0, "{end}");
    let orphan = [class, "ingress=\"orphan\"", "type=\"no-service\""];
    assert_eq!(series(text, "orphan_ingress", &orphan), Some(1.0));
    for (name, least) in [
        ("config_last_reload_successful", 1.0),
        ("success", 1.0),
        ("nginx_process_requests_total", 1.0),
        ("nginx_process_resident_memory_bytes", 1_000_000.0),
        ("nginx_process_cpu_seconds_total", 0.0),
        (
            "config_last_reload_successful_timestamp_seconds",
            1_700_000_000.0,
        ),
    ] {
        let value = series(text, name, &[class]);
        assert!(
            value.is_some_and(|value| value >= least),
            "{name}: {value:?}"
        );
    }

    let other = World::start(&[]).await;
    let page = other.admin("/metrics").await.body;
    assert!(
        !page.contains("config_last_reload_successful"),
        "nobody asked for it"
    );
}

#[tokio::test]
async fn endpoints_that_fail_their_checks_are_seen() {
    let origin = Origin::start("web").await;
    let (port, _taken) = nobody();
    let checked = ingress("shop", "shop.test", &[("/", "web")]).replace(
        "namespace: test}",
        "namespace: test, annotations: {lockgate.dev/health-check: tcp;interval=1s;unhealthy=1}}",
    );
    let files = [
        ("shop.yaml", checked),
        ("web.yaml", service("web", &[origin.port, port])),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let world = World::start_with(Authority::new(), &files, |_| {}).await;
    let table = world
        .admin_until("/debug/routes?format=table", "unhealthy", |text| {
            text.contains("unhealthy")
        })
        .await;
    let line = table.body.lines().find(|line| line.contains("unhealthy"));
    assert!(line.is_some_and(|line| line.contains(&format!("127.0.0.1:{port} "))));
    let labels = "namespace=\"test\",service=\"web\",service_port=\"80\"";
    let out = format!("lockgate_backend_endpoints_out{{{labels},cause=\"unhealthy\"}} 1");
    let passed = format!("lockgate_health_checks_total{{{labels},outcome=\"passed\"}} ");
    world
        .admin_until("/metrics", "one that is out and one that is not", |text| {
            let passed = text.lines().filter_map(|line| line.strip_prefix(&passed));
            text.contains(&out) && passed.into_iter().any(|count| count != "0")
        })
        .await;
}
