//! What a namespace is called where keys and nodes cannot have every name.

use percent_encoding::percent_decode_str;

use crate::store::Namespace;

/// A namespace's key or node: as it is, but for `.`, `..`, `%` and what ZooKeeper has no node for, which are percent-encoded.
pub(in crate::store) fn node_name(namespace: &Namespace) -> String {
    let name = namespace.as_str();
    if matches!(name, "." | "..") {
        return name.replace('.', "%2E");
    }
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        let refused =
            matches!(c, '%' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..);
        match refused {
            true => {
                let bytes = c.to_string().into_bytes();
                text.extend(bytes.iter().map(|byte| format!("%{byte:02X}")));
            }
            false => text.push(c),
        }
    }
    text
}

/// The namespace of a key or node.
pub(in crate::store) fn namespace(node: &str) -> Option<Namespace> {
    let name = percent_decode_str(node).decode_utf8().ok()?;
    Namespace::new(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_called_as_namespaces_where_that_can_be() {
        for (name, node) in [
            ("default", "default"),
            ("a b", "a b"),
            ("日本", "日本"),
            ("..", "%2E%2E"),
            ("a%2Fc", "a%252Fc"),
            ("🦀", "%F0%9F%A6%80"),
        ] {
            let made = Namespace::new(name).unwrap();
            assert_eq!(node_name(&made), node);
            assert_eq!(namespace(node), Some(made));
        }
    }
}
