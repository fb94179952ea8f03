//! Good and bad topology files.

use super::*;

const GOOD: &str = "about = \"two\"\n\n[[node]]\nlabel = \"a\"\nclass = \"device\"\nmemory_budget = \"64 MiB\"\n\n\
                    [[node]]\nlabel = \"b-2\"\nclass = \"cloud\"\nmemory_budget = \"2 GB\"\n";

fn refused(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    fs::write(&path, text).unwrap();
    let said = Topology::load(&path).unwrap_err().to_string();
    said.strip_prefix(&format!("{}:", folder.path().join("bad.toml").display())).unwrap_or(&said).to_owned()
}

#[test]
fn reads_a_mesh() {
    let topology = Topology::parse(GOOD).ok().unwrap();
    assert_eq!(topology.about, "two");
    assert_eq!(topology.nodes.len(), 2);
    let expected = NodeSpec::new("b-2", Class::Cloud, 2_000_000_000);
    assert_eq!(topology.nodes[1], expected);
    assert_eq!(topology.nodes[0].memory_budget_bytes, 64 << 20);
}

#[test]
fn all_files_of_the_workspace_are_good() {
    let folder = workspace_root().join("topologies");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Topology::load(&path).unwrap();
            files += 1;
        }
    }
    assert!(files > 0);
    assert!(Topology::load(Path::new("demo")).is_ok());
}

#[test]
fn names_file_line_and_field() {
    let changed = |from: &str, to: &str| refused(&GOOD.replacen(from, to, 1));
    assert_eq!(
        changed("class = \"cloud\"", "class = \"clowd\""),
        "10: unknown variant `clowd`, expected one of `device`, `edge`, `cloud`"
    );
    assert_eq!(
        changed("class = \"cloud\"", "clas = \"cloud\""),
        "10: unknown field `clas`, expected one of `label`, `class`, `memory_budget`, \
         `cpu`, `memory`, `disk`, `uplink`, `downlink`, `domains`, `behind`"
    );
    assert_eq!(
        changed("\"2 GB\"", "\"2 potatoes\""),
        "11: memory_budget `2 potatoes`: a size like \"64 MiB\" (kB, MB, GB, KiB, MiB, GiB)"
    );
    assert_eq!(changed("\"b-2\"", "\"a\""), "9: label `a` is taken by another node");
    assert_eq!(
        changed("\"b-2\"", "\"../b\""),
        "9: label `../b`: letters, digits, `.`, `_` and `-`, not starting with a dot"
    );
    assert_eq!(changed("about = \"two\"", "about = 2"), "1: invalid type: integer `2`, expected a string");
    assert_eq!(changed("\"two\"", "\" \""), "1: `about` says nothing; write what this mesh is for");
    assert_eq!(changed("label = \"a\"\n", ""), "3: missing field `label`");
    assert_eq!(refused("about = \"none\"\nnode = []\n"), "2: 0 nodes; a mesh has 1 to 64");
    assert!(changed("[[node]]", "[[node").starts_with("3: "), "{}", changed("[[node]]", "[[node"));
}

#[test]
fn says_which_file_is_not_there() {
    let said = Topology::load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(said.starts_with("topology no/such.toml: "), "{said}");
    let said = Topology::load(Path::new("no-such")).unwrap_err().to_string();
    assert!(said.contains("topologies/no-such.toml"), "{said}");
}
