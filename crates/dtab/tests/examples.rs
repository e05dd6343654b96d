//! The example dtabs of `dtabs/` are read, and say what their comments promise.

use std::path::PathBuf;

use dtab::{Dtab, Path};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dtabs"))
}

fn read(name: &str) -> Dtab {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    Dtab::read(&text).unwrap_or_else(|error| panic!("{name}: {}", error.report(&text)))
}

#[test]
fn every_example_is_read_and_printed() {
    let mut seen = 0;
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".dtab"), "{name}");
        let dtab = read(&name);
        assert!(!dtab.is_empty(), "{name}");
        assert_eq!(Dtab::read(&dtab.to_string()).unwrap(), dtab, "{name}");
        seen += 1;
    }
    assert!(seen >= 5);
}

#[test]
fn examples_lead_where_they_say() {
    for (name, path, want) in [
        ("walkthrough", "/svc/hello", "/host/hello"),
        ("walkthrough", "/host/hello", "/srv/hello"),
        ("walkthrough", "/host/world", "/srv/world-v1 | /srv/world"),
        (
            "walkthrough",
            "/srv/world-v1",
            "/#/io.l5d.k8s/default/http/world-v1",
        ),
        (
            "canary",
            "/svc/web",
            "95.00*/host/web & 5.00*/host/web-canary | /host/web",
        ),
        ("canary", "/svc/other", "/host/other"),
        (
            "domain-to-path",
            "/svc/a.b",
            "/$/io.buoyant.http.domainToPathPfx/domain/a.b",
        ),
        (
            "domain-to-path",
            "/domain/com/example/old",
            "! | /#/io.l5d.k8s/default/http/old",
        ),
        (
            "egress",
            "/svc/a:80",
            "/#/io.l5d.k8s/default/http/a:80 | /outside/a:80",
        ),
        (
            "egress",
            "/outside/a",
            "/$/io.buoyant.hostportPfx/host/a | /port80/a",
        ),
        (
            "fallback",
            "/svc/retired",
            "$ | (/prod/retired | /staging/retired | /files/retired | /sorry/retired)",
        ),
        (
            "by-method",
            "/svc/1.1/POST/catalog",
            "/k8s/catalog-primary | /$/io.buoyant.http.anyMethodPfx/k8s/POST/catalog",
        ),
    ] {
        let got = read(&format!("{name}.dtab")).lookup(&path.parse::<Path>().unwrap());
        assert_eq!(got.to_string(), want, "{path} under {name}.dtab");
    }
}
