use super::*;

fn arranged(words: &[&str]) -> Vec<String> {
    let all = std::iter::once("rutter")
        .chain(words.iter().copied())
        .map(OsString::from)
        .collect();
    arrange(all)
        .into_iter()
        .skip(1)
        .map(|w| w.into_string().unwrap())
        .collect()
}

#[test]
fn linkerd_1s_command_lines_are_understood() {
    for (typed, means) in [
        (&["config.yaml"][..], &["run", "config.yaml"][..]),
        (&["-"], &["run", "-"]),
        (
            &["-validate", "/etc/l5d.yaml"],
            &["run", "--validate", "/etc/l5d.yaml"],
        ),
        (&["run", "x.yaml"], &["run", "x.yaml"]),
        (
            &["config", "check", "x.yaml"],
            &["config", "check", "x.yaml"],
        ),
        (&["chekc"], &["chekc"]),
        (&["--help"], &["--help"]),
    ] {
        assert_eq!(arranged(typed), means);
    }
}

#[test]
fn the_help_lists_every_command_and_no_other() {
    let command = Cli::command();
    let mut listed: Vec<&str> = GROUPS
        .lines()
        .filter_map(|l| l.strip_prefix("  "))
        .filter_map(|l| l.split(' ').next())
        .collect();
    let mut known: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    known.push("help");
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_mistyped_command_is_answered_with_the_right_one() {
    let error = Cli::try_parse_from(["rutter", "chekc"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("'check'"), "{error}");
}

#[test]
fn signs_are_ascii_unless_the_locale_is_utf_8_and_plain_unless_the_terminal_has_colours() {
    let style = |variables: &[(&str, &str)], terminal| {
        let variables = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Style::of(
            &Environment {
                variables,
                ..Environment::default()
            },
            terminal,
        )
        .sign(Sign::Ok)
    };
    assert_eq!(style(&[("LANG", "C")], true), "\u{1b}[32m[ok]\u{1b}[0m");
    assert_eq!(style(&[("LANG", "ja_JP.UTF-8")], false), "✓");
    assert_eq!(style(&[("LANG", "C.UTF-8"), ("NO_COLOR", "1")], true), "✓");
    assert_eq!(style(&[("LANG", "C.UTF-8"), ("TERM", "dumb")], true), "✓");
    assert_eq!(
        style(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")], false),
        "[ok]"
    );
}

/// A configuration with this dtab, and namers for files.
fn config(dtab: &str) -> crate::config::settings::Config {
    let text = format!(
        "namers:\n- {{kind: io.l5d.fs, rootDir: /nowhere}}\n- {{kind: io.l5d.rewrite, prefix: /up, pattern: '/{{x}}', name: '/srv/{{x}}'}}\nrouters:\n- protocol: http\n  dtab: {dtab:?}\n  servers: [{{port: 0}}]\n"
    );
    let environment = Environment {
        purpose: Purpose::Text,
        ..Environment::default()
    };
    match crate::config::load("test", &text, &environment) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{}", problems.render()),
    }
}

#[tokio::test]
async fn an_offline_delegation_shows_each_way() {
    let config = config(
        "/srv => /#/io.l5d.fs; /svc => /srv; /svc/w => 9 * /srv/a & 1 * /srv/b | ~; /loop => /loop/x; /svc/up => /#/up/a; /svc/no => /#/none/a; /svc/ip => /$/inet/127.0.0.1/80; /svc/dns => /$/inet/example.test/80",
    );
    let offline = offline::Offline::new(&config);
    let style = Style {
        unicode: false,
        colour: false,
        width: None,
    };
    let way =
        |path: &str| offline.delegate(&config.routers[0].dtab, &::dtab::Path::read(path).unwrap());
    let drawn = |path: &str| tree::draw(&way(path), style);
    let want = "\
/svc/w
|- /svc/w => 9.00*/srv/a & /srv/b | ~   /svc/w
|  |- 90 %  /srv/a
|  |  `- /srv => /#/io.l5d.fs   [ok] /#/io.l5d.fs/a   (nobody asked: this is what the dtab alone says)
|  `- 10 %  /srv/b
|     `- /srv => /#/io.l5d.fs   [ok] /#/io.l5d.fs/b   (nobody asked: this is what the dtab alone says)
|- /svc/w => 9.00*/srv/a & /srv/b | ~   [FAIL] ~   the rule ends here: the next one is tried
`- /svc => /srv   /srv/w
   `- /srv => /#/io.l5d.fs   [ok] /#/io.l5d.fs/w   (nobody asked: this is what the dtab alone says)";
    assert_eq!(drawn("/svc/w"), want);
    assert_eq!(
        drawn("/nope"),
        "/nope\n  [FAIL] /nope   no entry takes it further"
    );
    assert!(
        drawn("/loop").contains("[FAIL] /loop"),
        "{}",
        drawn("/loop")
    );
    for (path, leads, says) in [
        ("/svc/x", true, "nobody asked"),
        ("/x", false, ""),
        // What needs nobody to be asked is done: rewriting, addresses, names of no namer.
        ("/svc/up", true, "/#/io.l5d.fs/a"),
        ("/svc/ip", true, "1 endpoint: 127.0.0.1:80"),
        ("/svc/dns", true, "nobody asked"),
        ("/svc/no", true, "/#/none/a"),
    ] {
        assert_eq!(tree::leads_somewhere(&way(path)), leads, "{path}");
        assert!(drawn(path).contains(says), "{path}: {}", drawn(path));
    }
}

/// Texts that the program or the documents show to people, with where they stand.
fn shown_texts() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut folders = vec![root.join("docs"), root.join("crates"), root.join("charts")];
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            let shown = ["rs", "md", "html", "js", "yaml", "txt", "tpl"];
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| shown.iter().any(|s| e == *s))
            {
                files.push(path);
            }
        }
    }
    for file in files {
        if let Ok(text) = std::fs::read_to_string(&file) {
            found.push((file.display().to_string(), text));
        }
    }
    for entry in telemetry::code::entries() {
        found.push((entry.code.to_owned(), entry.page()));
    }
    found
}

/// The command lines in a text that are marked as such: behind a backtick, a prompt, or `Examples:` of a help.
fn command_lines(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for mark in ["`rutter ", "$ rutter ", "\\n  rutter "] {
        for (at, _) in text.match_indices(mark) {
            let line = &text[at + mark.len()..];
            let end = line
                .find(['`', '\n', '\\', '"', ';', '|'])
                .unwrap_or(line.len());
            found.push(&line[..end]);
        }
    }
    found
}

/// Why a command line is none of ours.
fn not_a_command(line: &str) -> Option<String> {
    let mut command = Cli::command();
    command.build();
    let mut at = &command;
    let mut begun = false;
    for word in line.split_whitespace() {
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or_default();
            let known = at.get_arguments().any(|a| a.get_long() == Some(flag));
            if !known && !matches!(flag, "" | "help" | "version") {
                return Some(format!("{} has no --{flag}", at.get_name()));
            }
        } else if let Some(next) = at.find_subcommand(word) {
            at = next;
            begun = true;
        } else if !begun {
            // A file, or a placeholder in capitals, may stand in the command's place.
            let file = word.contains(['.', '/', '{'])
                || word == "-"
                || word.chars().all(|c| !c.is_lowercase());
            return (!file).then(|| format!("there is no command {word}"));
        }
    }
    None
}

#[test]
fn every_command_that_is_named_anywhere_exists() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (place, text) in shown_texts() {
        for line in command_lines(&text) {
            seen += 1;
            if let Some(why) = not_a_command(line) {
                wrong.push(format!("{place}: `rutter {line}`: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 100, "only {seen} command lines were found");
    assert!(
        not_a_command("tapp --min-latency 1s").is_some() && not_a_command("check --nope").is_some()
    );
    assert!(
        not_a_command("config check FILE").is_none() && not_a_command("linkerd.yaml").is_none()
    );
}
