//! A folder of manifests that people and programs write to while it is served.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use crate::manifest::{ingress, service};
use crate::origin::Origin;
use crate::world::{World, put};

async fn shop() -> (World, Origin) {
    let origin = Origin::start("web").await;
    let world = World::start(&[
        ("shop.yaml", &ingress("shop", "shop.test", &[("/", "web")])),
        ("web.yaml", &service("web", &[origin.port])),
    ])
    .await;
    (world, origin)
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_its_last_good_version() {
    let (mut world, _origin) = shop().await;
    let good = ingress("shop", "shop.test", &[("/", "web")]);
    let half = &good[..good.len() - 30];
    world
        .reported(|folder| put(folder, "shop.yaml", half))
        .await;
    assert_eq!(world.get("shop.test", "/").await.body, "web /");
    let problems = world.problems().await;
    assert!(
        problems.len() == 1
            && problems[0].starts_with("shop.yaml:")
            && problems[0].ends_with("the last good version of this file is still served"),
        "{problems:?}"
    );
    let metrics = world.admin("/metrics").await.body;
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("lockgate_manifest_files_stale "))
    );

    // The file is mended, with another change in it.
    world
        .write("shop.yaml", &good.replace("shop.test", "mended.test"))
        .await;
    assert_eq!(world.get("mended.test", "/").await.body, "web /");
    assert_eq!(world.get("shop.test", "/").await.status, 404);
    assert!(world.problems().await.is_empty());
}

#[tokio::test]
async fn a_file_is_not_read_before_its_writer_is_done() {
    let (mut world, _origin) = shop().await;
    let more = ingress("more", "more.test", &[("/", "web")]);
    // The first half is a whole manifest by itself, for another host.
    let decoy = more.replace("more.test", "half.test");
    let path = world.folder.path().join("more.yaml");
    let mut file = File::create(&path).unwrap();
    file.write_all(decoy.as_bytes()).unwrap();
    file.flush().unwrap();
    // Something else changes meanwhile and is taken in.
    world
        .write(
            "other.yaml",
            &ingress("other", "other.test", &[("/", "web")]),
        )
        .await;
    assert_eq!(world.get("other.test", "/").await.body, "web /");
    assert_eq!(
        world.get("half.test", "/").await.status,
        404,
        "still being written"
    );
    world
        .changed(|_| {
            file.set_len(0).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            file.write_all(more.as_bytes()).unwrap();
            drop(file);
        })
        .await;
    assert_eq!(world.get("more.test", "/").await.body, "web /");
    assert_eq!(world.get("half.test", "/").await.status, 404);
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_one_change() {
    let (mut world, _origin) = shop().await;
    let before = world.generation();
    let moved = ingress("shop", "moved.test", &[("/", "web")]);
    world
        .changed(|folder| {
            // As editors save: the old file goes aside, the new one comes under its name.
            put(folder, "shop.yaml.new", &moved);
            fs::rename(folder.join("shop.yaml"), folder.join("shop.yaml~")).unwrap();
            fs::rename(folder.join("shop.yaml.new"), folder.join("shop.yaml")).unwrap();
        })
        .await;
    assert_eq!(
        world.generation(),
        before + 1,
        "the host was never without a route"
    );
    assert_eq!(world.get("moved.test", "/").await.body, "web /");
    assert_eq!(world.get("shop.test", "/").await.status, 404);
}

#[tokio::test]
async fn a_mounted_configmap_is_swapped_as_a_whole() {
    let (mut world, _origin) = shop().await;
    let mount = |folder: &std::path::Path, version: &str, host: &str| {
        put(
            folder,
            &format!("mount/..{version}/app.yaml"),
            &ingress("app", host, &[("/", "web")]),
        );
        let next = folder.join("mount/..data_tmp");
        symlink(format!("..{version}"), &next).unwrap();
        fs::rename(next, folder.join("mount/..data")).unwrap();
    };
    world
        .changed(|folder| {
            mount(folder, "v1", "one.test");
            symlink("..data/app.yaml", folder.join("mount/app.yaml")).unwrap();
        })
        .await;
    assert_eq!(world.get("one.test", "/").await.body, "web /");
    world
        .changed(|folder| {
            mount(folder, "v2", "two.test");
            fs::remove_dir_all(folder.join("mount/..v1")).unwrap();
        })
        .await;
    assert_eq!(world.get("two.test", "/").await.body, "web /");
    assert_eq!(world.get("one.test", "/").await.status, 404);
}

#[tokio::test]
async fn folders_come_and_go_with_what_is_in_them() {
    let (mut world, _origin) = shop().await;
    world
        .changed(|folder| {
            put(
                folder,
                "team/a/deep.yaml",
                &ingress("deep", "deep.test", &[("/", "web")]),
            );
        })
        .await;
    assert_eq!(world.get("deep.test", "/").await.body, "web /");
    let later = ingress("later", "later.test", &[("/", "web")]);
    world
        .changed(|folder| put(folder, "team/a/later.json", &as_json(&later)))
        .await;
    assert_eq!(
        world.get("later.test", "/").await.body,
        "web /",
        "JSON in a new folder"
    );
    world
        .changed(|folder| fs::remove_dir_all(folder.join("team")).unwrap())
        .await;
    assert_eq!(world.get("deep.test", "/").await.status, 404);
    assert_eq!(world.get("later.test", "/").await.status, 404);
}

fn as_json(yaml: &str) -> String {
    let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    value.to_string()
}

#[tokio::test]
async fn of_two_files_with_one_object_the_first_by_name_counts() {
    let (mut world, _origin) = shop().await;
    let double = ingress("shop", "double.test", &[("/", "web")]);
    world
        .reported(|folder| put(folder, "zz.yaml", &double))
        .await;
    assert_eq!(world.get("double.test", "/").await.status, 404);
    let problems = world.problems().await;
    assert_eq!(
        problems,
        [
            "zz.yaml:1: Ingress test/shop stands in shop.yaml too, which comes first by name; the one here is not used"
        ]
    );
    world
        .changed(|folder| fs::remove_file(folder.join("shop.yaml")).unwrap())
        .await;
    assert_eq!(
        world.get("double.test", "/").await.body,
        "web /",
        "now it is the only one"
    );
    assert!(world.problems().await.is_empty());
}

#[tokio::test]
async fn unknown_kinds_and_fields_are_told_and_harm_nothing() {
    let (mut world, _origin) = shop().await;
    let odd = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n---\n{}---\nthis: [is, not, an, object]\n",
        ingress("odd", "odd.test", &[("/", "web")]).replace("  rules:", "  rulez: 1\n  rules:")
    );
    world.write("odd.yaml", &odd).await;
    assert_eq!(
        world.get("odd.test", "/").await.body,
        "web /",
        "the good document is served"
    );
    let problems = world.problems().await.join("\n");
    for want in [
        "odd.yaml:1: kind `Deployment`",
        "odd.yaml:10: Ingress `odd`: spec.rulez",
        "odd.yaml:17: kind",
    ] {
        assert!(problems.contains(want), "{want} in:\n{problems}");
    }
}

#[tokio::test]
async fn an_ingress_of_another_class_is_named_and_served_once_it_is_ours() {
    let (mut world, _origin) = shop().await;
    let ours = ingress("other", "other.test", &[("/", "web")]);
    let others = ours.replace("ingressClassName: lockgate", "ingressClassName: nginx");
    world
        .looked_at(|folder| put(folder, "other.yaml", &others))
        .await;
    assert_eq!(world.get("other.test", "/").await.status, 404);
    let problems = world.problems().await.join("\n");
    assert!(
        problems.starts_with("Ingress test/other: Lockgate does not serve it: "),
        "{problems}"
    );
    let class = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: lockgate.dev/ingress-controller}
";
    world.write("class.yaml", class).await;
    assert_eq!(world.get("other.test", "/").await.body, "web /");
    assert!(world.problems().await.is_empty());
}

#[tokio::test]
async fn a_folder_that_vanishes_is_served_on_and_picked_up_again() {
    let (mut world, _origin) = shop().await;
    let folder = world.folder.path().to_owned();
    let aside = folder.with_extension("aside");
    world
        .reported(|folder| fs::rename(folder, &aside).unwrap())
        .await;
    assert_eq!(world.get("shop.test", "/").await.body, "web /");
    assert!(world.problems().await.join("\n").contains("cannot be read"));
    world
        .reported(|_| fs::rename(&aside, &folder).unwrap())
        .await;
    assert!(world.problems().await.is_empty());
    world
        .write("more.yaml", &ingress("more", "more.test", &[("/", "web")]))
        .await;
    assert_eq!(world.get("more.test", "/").await.body, "web /");
}
