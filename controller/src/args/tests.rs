use clap::CommandFactory;

use super::*;
use crate::app;

fn run(arguments: &[&str]) -> Result<app::Settings, clap::Error> {
    let all = ["lockgate", "run"].iter().chain(arguments);
    let Command::Run(run) = Cli::try_parse_from(all)?.command else {
        panic!("another command");
    };
    Ok(run.settings())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_flag_of_run_has_its_variable() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    for flag in run.get_arguments() {
        let Some(long) = flag.get_long() else {
            panic!("{flag} has no name");
        };
        if long == "help" || long == "version" {
            continue;
        }
        let want = format!("LOCKGATE_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(
            flag.get_env().and_then(|name| name.to_str()),
            Some(want.as_str())
        );
        assert!(
            flag.get_help_heading().is_some(),
            "--{long} stands under a heading"
        );
    }
}

#[test]
fn the_defaults_depend_on_the_source() {
    let cluster = run(&[]).unwrap();
    assert_eq!(cluster.listen.admin.to_string(), "0.0.0.0:10254");
    assert_eq!(cluster.shutdown_delay, Duration::from_secs(10));
    assert_eq!(cluster.serve.access_log, Some(LogFormat::Json));
    assert!(!cluster.translation.allow_loopback_endpoints);
    let folder = run(&["--manifests", "x"]).unwrap();
    assert_eq!(folder.listen.admin.to_string(), "127.0.0.1:10254");
    assert_eq!(folder.shutdown_delay, Duration::ZERO);
    assert_eq!(folder.serve.access_log, Some(LogFormat::Text));
    assert!(folder.translation.allow_loopback_endpoints);
}

#[test]
fn the_access_log_has_a_format_of_its_own_where_that_is_asked_for() {
    for (arguments, want) in [
        (&["--log-format", "text"][..], LogFormat::Text),
        (&["--access-log-format", "nginx"], LogFormat::Text),
        (
            &["--log-format", "text", "--access-log-format", "json"],
            LogFormat::Json,
        ),
    ] {
        assert_eq!(run(arguments).unwrap().serve.access_log, Some(want));
    }
}

#[test]
fn an_empty_zone_is_none() {
    let here = run(&["--node-name", "n1", "--zone="]).unwrap().translation;
    assert_eq!(here.locality.node.as_deref(), Some("n1"));
    assert_eq!(
        here.locality.zone, None,
        "as from a label that is not there"
    );
}

#[test]
fn lists_may_be_repeated_or_separated_by_commas() {
    let flags = [
        "--http-listen",
        "127.0.0.1:1,[::1]:2",
        "--http-listen",
        "127.0.0.1:3",
    ];
    let ports = run(&flags)
        .unwrap()
        .listen
        .http
        .iter()
        .map(SocketAddr::port)
        .collect::<Vec<_>>();
    assert_eq!(ports, [1, 2, 3]);
}

#[test]
fn mistakes_are_explained() {
    for (arguments, want) in [
        (
            &["--http-listen", "localhost"][..],
            "an IP address and a port are needed",
        ),
        (&["--workers", "0"], "a whole number above 0 is needed"),
        (
            &["--configmap", "name"],
            "is not of the form namespace/name",
        ),
        (
            &["--manifests", "a", "--kubeconfig", "b"],
            "cannot be used with",
        ),
        (
            &["--publish-service", "a/b", "--publish-status-address", "c"],
            "cannot be used with",
        ),
        (
            &["--admission-listen", "127.0.0.1:9443"],
            "--admission-secret <NS/NAME>",
        ),
        (&["--admission-secret", "a/b"], "--admission-listen <ADDR>"),
        (&["--drain-timeout", "soon"], "expected number"),
        (&["--log-format", "xml"], "possible values: json, text"),
    ] {
        let error = run(arguments).unwrap_err().to_string();
        assert!(error.contains(want), "{arguments:?}: {error}");
    }
}
