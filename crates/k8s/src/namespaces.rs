//! Which namespaces a dtab can lead to: those that are watched one by one when the permission for all is missing.

use std::collections::BTreeSet;

use dtab::{Dtab, NameTree, Path};

/// How often a destination is followed through the dtab; what is deeper is no way that people write.
const DEPTH: usize = 8;

/// The namespaces that paths under `/#` + `prefix` name in the destinations of `dtab`, also through other entries
/// (`/ns => /#/io.l5d.k8s ; /svc => /ns/default/http`). Those that only a request names are not among them.
#[must_use]
pub fn of(dtab: &Dtab, prefix: &Path) -> BTreeSet<String> {
    let whole = Path::utf8(["#"]).concat(prefix);
    let mut found = BTreeSet::new();
    for dentry in dtab.entries() {
        follow(dtab, &whole, &dentry.dst, DEPTH, &mut found);
    }
    found
}

fn follow(
    dtab: &Dtab,
    whole: &Path,
    tree: &NameTree<Path>,
    depth: usize,
    found: &mut BTreeSet<String>,
) {
    match tree {
        NameTree::Leaf(path) if path.starts_with(whole) => {
            let namespace = path
                .segments()
                .get(whole.len())
                .and_then(|segment| segment.as_str());
            found.extend(namespace.map(str::to_ascii_lowercase));
        }
        NameTree::Leaf(path) if depth > 0 => {
            follow(dtab, whole, &dtab.lookup(path), depth - 1, found);
        }
        NameTree::Alt(trees) => trees
            .iter()
            .for_each(|tree| follow(dtab, whole, tree, depth, found)),
        NameTree::Union(trees) => trees
            .iter()
            .for_each(|branch| follow(dtab, whole, &branch.tree, depth, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_found_through_aliases_trees_and_case() {
        let dtab = "/ns => /#/io.l5d.k8s ; /svc => /#/io.l5d.k8s/Default/http | /ns/other/http ;
                    /w => 3 * /ns/third/80/x & 1 * /#/io.l5d.fs/no ; /loop => /loop/a";
        let found = of(&Dtab::read(dtab).unwrap(), &Path::utf8(["io.l5d.k8s"]));
        assert_eq!(
            found,
            ["default", "other", "third"].map(String::from).into()
        );
    }
}
