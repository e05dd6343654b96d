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

#[test]
fn an_offline_delegation_shows_each_way() {
    let dtab = dtab::Dtab::read("/srv => /#/io.l5d.fs; /svc => /srv; /svc/w => 9 * /srv/a & 1 * /srv/b | ~; /loop => /loop/x").unwrap();
    let style = Style {
        unicode: false,
        colour: false,
    };
    let drawn = |path: &str| {
        tree::draw(
            &tree::offline(&dtab, &dtab::Path::read(path).unwrap()),
            style,
        )
    };
    let want = "\
/svc/w
|- /svc/w => 9.00*/srv/a & /srv/b | ~   /svc/w
|  |- by weight
|  |  |- 90 %  /srv/a
|  |  |  `- /srv => /#/io.l5d.fs   [ok] /#/io.l5d.fs/a   (nobody asked: this is what the dtab alone says)
|  |  `- 10 %  /srv/b
|  |     `- /srv => /#/io.l5d.fs   [ok] /#/io.l5d.fs/b   (nobody asked: this is what the dtab alone says)
|  `- [FAIL] ~
`- /svc => /srv   /srv/w
   `- /srv => /#/io.l5d.fs   [ok] /#/io.l5d.fs/w   (nobody asked: this is what the dtab alone says)";
    assert_eq!(drawn("/svc/w"), want);
    assert_eq!(
        drawn("/nope"),
        "/nope\n  [FAIL] /nope   no entry takes it further"
    );
    assert!(drawn("/loop").contains("in a circle"));
    assert!(tree::leads_somewhere(&tree::offline(
        &dtab,
        &dtab::Path::read("/svc/x").unwrap()
    )));
    assert!(!tree::leads_somewhere(&tree::offline(
        &dtab,
        &dtab::Path::read("/x").unwrap()
    )));
}
