use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;

struct Folder {
    dir: TempDir,
    namer: FsNamer,
}

impl Folder {
    /// A namer of a folder with these files.
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        for (name, text) in files {
            write(&dir, name, text);
        }
        let dns = Dns::system(Handle::current());
        let namer = FsNamer::new(Path::utf8(["io.l5d.fs"]), dir.path(), dns).unwrap();
        Self { dir, namer }
    }

    fn lookup(&self, name: &str, reads: &mut Reads) -> Option<(String, String, Addr)> {
        let Activity::Ok(tree) = self.namer.lookup(&name.parse().unwrap(), reads) else {
            panic!("files are always known");
        };
        match tree {
            NameTree::Neg => None,
            NameTree::Leaf(Name::Bound(bound)) => {
                let crate::Target::Endpoints(addrs) = &bound.target else {
                    panic!("a file is endpoints");
                };
                Some((
                    bound.id.to_string(),
                    bound.residual.to_string(),
                    addrs.addr(reads),
                ))
            }
            other => panic!("{other:?}"),
        }
    }

    /// The addresses of a name, `ip:port`, or none when there is no such name.
    fn now(&self, name: &str) -> Option<Vec<String>> {
        let (_, _, addr) = self.lookup(name, &mut Reads::new())?;
        Some(
            addr.endpoints()
                .iter()
                .map(|e| e.addr.to_string())
                .collect(),
        )
    }

    /// Waits until the name has these addresses, and gives what it had until then.
    async fn becomes(&self, name: &str, want: Option<&[&str]>) -> Vec<Option<Vec<String>>> {
        let mut seen = Vec::new();
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let mut reads = Reads::new();
                let got = self.lookup(name, &mut reads).map(|(_, _, addr)| {
                    addr.endpoints()
                        .iter()
                        .map(|e| e.addr.to_string())
                        .collect::<Vec<_>>()
                });
                if got.as_deref()
                    == want
                        .map(|w| w.iter().map(ToString::to_string).collect::<Vec<_>>())
                        .as_deref()
                {
                    return;
                }
                seen.push(got);
                reads.changed().await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("{name} did not become {want:?}"));
        seen
    }
}

fn write(dir: &TempDir, name: &str, text: &str) {
    let place = dir.path().join(name);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, text).unwrap();
}

#[tokio::test]
async fn lines_are_addresses_with_weights_and_comments() {
    let folder = Folder::with(&[(
        "web",
        "\n127.0.0.1 80 * 0.5\n\n  127.0.0.2  81  \n# comment\n127.0.0.3 82 # more\n127.0.0.2 81\n",
    )]);
    let (id, residual, addr) = folder.lookup("/web/a/b", &mut Reads::new()).unwrap();
    assert_eq!(
        (id.as_str(), residual.as_str()),
        ("/#/io.l5d.fs/web", "/a/b")
    );
    let got: Vec<_> = addr
        .endpoints()
        .iter()
        .map(|e| (e.addr.to_string(), e.weight))
        .collect();
    let want = [
        ("127.0.0.1:80", 0.5),
        ("127.0.0.2:81", 1.0),
        ("127.0.0.3:82", 1.0),
    ];
    assert_eq!(got, want.map(|(addr, weight)| (addr.to_owned(), weight)));
}

#[tokio::test]
async fn folders_are_part_of_the_name() {
    let folder = Folder::with(&[("a/b/web", "127.0.0.1 80\n")]);
    let (id, residual, _) = folder.lookup("/a/b/web/x", &mut Reads::new()).unwrap();
    assert_eq!(
        (id.as_str(), residual.as_str()),
        ("/#/io.l5d.fs/a/b/web", "/x")
    );
    assert_eq!(folder.now("/a/b"), None);
    assert_eq!(folder.now("/a/c"), None);
    assert_eq!(
        folder.namer.names(),
        [Path::utf8(["#", "io.l5d.fs", "a", "b", "web"])]
    );
    let why = |name: &str| folder.namer.why_not(&name.parse().unwrap()).unwrap();
    assert!(why("/a/c/d").starts_with("no file `c` in ") && why("/a/c/d").ends_with("/a"));
    assert!(why("/a/b").ends_with("/a/b is a folder"));
}

#[tokio::test]
async fn no_name_leads_out_of_the_folder() {
    let folder = Folder::with(&[("dir/web", "127.0.0.1 80\n")]);
    let outside = folder
        .dir
        .path()
        .parent()
        .unwrap()
        .join("outside-of-the-folder");
    for name in [
        "/../etc/passwd",
        "/dir/../dir/web",
        "/.",
        "/dir/./web",
        "/\\x2fetc\\x2fpasswd",
        "/dir\\x2fweb",
    ] {
        assert_eq!(folder.now(name), None, "{name}");
    }
    assert!(!outside.exists());
}

#[tokio::test]
async fn a_file_that_appears_changes_and_disappears_is_followed() {
    let folder = Folder::with(&[]);
    assert_eq!(folder.now("/web"), None);
    write(&folder.dir, "web", "127.0.0.1 80\n");
    folder.becomes("/web", Some(&["127.0.0.1:80"])).await;
    write(&folder.dir, "web", "127.0.0.2 80\n");
    folder.becomes("/web", Some(&["127.0.0.2:80"])).await;
    fs::remove_file(folder.dir.path().join("web")).unwrap();
    folder.becomes("/web", None).await;
    write(&folder.dir, "new/web", "127.0.0.3 80\n");
    folder.becomes("/new/web", Some(&["127.0.0.3:80"])).await;
    write(&folder.dir, "new/web", "127.0.0.4 80\n");
    folder.becomes("/new/web", Some(&["127.0.0.4:80"])).await;
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_followed() {
    let folder = Folder::with(&[("web", "127.0.0.1 80\n")]);
    for port in 81..84 {
        write(&folder.dir, "web.tmp", &format!("127.0.0.1 {port}\n"));
        fs::rename(
            folder.dir.path().join("web.tmp"),
            folder.dir.path().join("web"),
        )
        .unwrap();
        folder
            .becomes("/web", Some(&[&format!("127.0.0.1:{port}")]))
            .await;
    }
}

#[tokio::test]
async fn a_mounted_config_map_is_followed() {
    let folder = Folder::with(&[]);
    let root = folder.dir.path();
    let swap = |version: &str, text: &str| {
        write(&folder.dir, &format!("..{version}/web"), text);
        std::os::unix::fs::symlink(format!("..{version}"), root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    swap("v1", "127.0.0.1 80\n");
    std::os::unix::fs::symlink("..data/web", root.join("web")).unwrap();
    folder.becomes("/web", Some(&["127.0.0.1:80"])).await;
    swap("v2", "127.0.0.2 80\n");
    fs::remove_dir_all(root.join("..v1")).unwrap();
    folder.becomes("/web", Some(&["127.0.0.2:80"])).await;
    assert_eq!(
        folder.namer.names().len(),
        1,
        "the versions themselves are no names"
    );
}

#[tokio::test]
async fn a_file_that_is_being_written_is_never_empty() {
    let folder = Folder::with(&[("web", "127.0.0.1 80\n")]);
    let place = folder.dir.path().join("web");
    for port in 1..20 {
        // Emptied, removed, and half a line before the whole.
        fs::write(&place, "").unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        fs::remove_file(&place).unwrap();
        fs::write(&place, "127.0.").unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        fs::write(&place, format!("127.0.0.1 {}\n", 1000 + port)).unwrap();
        let want = format!("127.0.0.1:{}", 1000 + port);
        let before = folder.becomes("/web", Some(&[&want])).await;
        assert!(
            before.iter().flatten().all(|addrs| addrs.len() == 1),
            "{before:?}"
        );
        assert!(!before.contains(&None));
    }
}

#[tokio::test]
async fn a_file_that_stays_empty_is_bound_to_nothing() {
    let folder = Folder::with(&[("none", ""), ("web", "127.0.0.1 80\n")]);
    assert_eq!(folder.now("/none"), Some(Vec::new()));
    write(&folder.dir, "web", "");
    folder.becomes("/web", Some(&[])).await;
    write(&folder.dir, "web", "# nothing here\n");
    folder.becomes("/web", Some(&[])).await;
}

#[tokio::test]
async fn a_wrong_line_keeps_the_last_good_addresses_and_is_told() {
    let folder = Folder::with(&[("bad", "127.0.0.1\n"), ("web", "127.0.0.1 80\n")]);
    let (_, _, addr) = folder.lookup("/bad", &mut Reads::new()).unwrap();
    assert_eq!(
        addr,
        Addr::Failed("malformed address: 127.0.0.1 (line 1)".into())
    );
    write(&folder.dir, "web", "127.0.0.1 81\n127.0.0.1 http\n");
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while folder.namer.state()["files"]["/web"]["error"].is_null() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap();
    let state = folder.namer.state();
    assert_eq!(
        state["files"]["/web"]["error"],
        "malformed address: 127.0.0.1 http (line 2)"
    );
    assert_eq!(
        state["files"]["/web"]["addresses"],
        serde_json::json!(["127.0.0.1 80"])
    );
    assert_eq!(folder.now("/web"), Some(vec!["127.0.0.1:80".to_owned()]));
}

#[tokio::test]
async fn wrong_lines_are_recognised() {
    let dns = Dns::system(Handle::current());
    for line in [
        "h",
        "h 0",
        "h 65536",
        "h 1 2",
        "h 1 *",
        "h 1 * x",
        "h 1 * -1",
        "h 1 * 1e3",
        "h +1",
        "h 1 * inf",
        "* 3",
    ] {
        assert!(addresses::parse(line, &dns).is_err(), "{line}");
    }
    for line in [
        "127.0.0.1\t80",
        "::1 80",
        "127.0.0.1 80*.5",
        "localhost 80 * 2",
        "127.0.0.1 80 # x * y",
    ] {
        assert_eq!(addresses::parse(line, &dns).unwrap().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn a_large_file_is_refused() {
    let line = "127.0.0.1 80\n";
    let large = line.repeat(MAX_FILE_BYTES as usize / line.len() + 1);
    let folder = Folder::with(&[("large", &large)]);
    let (_, _, addr) = folder.lookup("/large", &mut Reads::new()).unwrap();
    assert!(matches!(addr, Addr::Failed(problem) if problem.contains("larger than 512000 bytes")));
}

#[tokio::test]
async fn a_folder_that_is_gone_keeps_its_names_until_it_is_back() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("disco");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("web"), "127.0.0.1 80\n").unwrap();
    let dns = Dns::system(Handle::current());
    let namer = FsNamer::new(Path::utf8(["io.l5d.fs"]), &root, dns).unwrap();
    let folder = Folder { dir: parent, namer };
    fs::rename(&root, folder.dir.path().join("away")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(folder.now("/web"), Some(vec!["127.0.0.1:80".to_owned()]));
}

#[tokio::test]
async fn a_missing_root_is_an_error() {
    let dir = TempDir::new().unwrap();
    write(&dir, "file", "");
    let dns = Dns::system(Handle::current());
    for name in ["nope", "file"] {
        let error = FsNamer::new(Path::root(), dir.path().join(name), dns.clone()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_namer_leaves_no_watch_and_no_thread() {
    let inotify = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links
            .filter(|link| link.to_string_lossy().contains("inotify"))
            .count()
    };
    let before = inotify();
    for _ in 0..50 {
        drop(Folder::with(&[("web", "127.0.0.1 80\n")]));
    }
    // The threads end by themselves; other tests run beside this one and have a few watches of their own.
    for _ in 0..1000 {
        if inotify() < before + 30 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{before} before, {} now", inotify());
}

#[tokio::test]
async fn links_in_a_circle_are_followed_once() {
    let folder = Folder::with(&[("dir/web", "127.0.0.1 80\n")]);
    for name in ["one", "two", "three"] {
        std::os::unix::fs::symlink("..", folder.dir.path().join("dir").join(name)).unwrap();
    }
    write(&folder.dir, "dir/web", "127.0.0.2 80\n");
    folder.becomes("/dir/web", Some(&["127.0.0.2:80"])).await;
    assert_eq!(folder.namer.names().len(), 1);
}
