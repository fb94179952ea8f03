//! What fails together, as owners say: nodes of one owner, at one place, behind one way out, on one supply of power.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::is_valid_name;

/// What the nodes of a domain share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainKind {
    /// Who decides on them.
    Owner,
    /// A place.
    Site,
    /// A way out to others.
    Uplink,
    /// A supply of power.
    Power,
}

impl DomainKind {
    /// All of them; the place is the number on the wire.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Site, Self::Uplink, Self::Power];

    /// As owners write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Site => "site",
            Self::Uplink => "uplink",
            Self::Power => "power",
        }
    }
}

/// One domain that a node is in: `site:home`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    /// What its nodes share.
    pub kind: DomainKind,
    /// Which; a valid name ([`is_valid_name`]).
    pub name: String,
}

impl Domain {
    /// As a record has it: the number of the kind, and the name.
    pub(super) fn to_wire(&self) -> (u8, &str) {
        (self.kind as u8, &self.name)
    }

    /// `None` for a kind that only later versions know.
    pub(super) fn from_wire((kind, name): (u8, String)) -> Option<Self> {
        Some(Self { kind: *DomainKind::ALL.get(usize::from(kind))?, name })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.name(), self.name)
    }
}

impl FromStr for Domain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').ok_or("write KIND:NAME, such as site:home")?;
        let known = DomainKind::ALL.into_iter().find(|known| known.name() == kind);
        let kind = known.ok_or_else(|| format!("`{kind}` is no kind: use owner, site, uplink or power"))?;
        if !is_valid_name(name) {
            return Err(format!(
                "`{name}` is no name: use 1 to 64 letters, digits, dots, dashes or underscores"
            ));
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// How many domains two nodes have in common: as many things can take both away at once.
pub fn shared(one: &[Domain], other: &[Domain]) -> usize {
    one.iter().filter(|domain| other.contains(domain)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_write_kind_and_name() {
        for text in ["owner:ada", "site:home-2", "uplink:lte", "power:ups.1"] {
            let domain: Domain = text.parse().unwrap();
            assert_eq!(domain.to_string(), text);
            let (kind, name) = domain.to_wire();
            assert_eq!(Domain::from_wire((kind, name.to_owned())), Some(domain));
        }
        for wrong in ["home", "site:", "place:home", "site:../x", ":home", "site:a b"] {
            assert!(wrong.parse::<Domain>().is_err(), "{wrong}");
        }
        assert_eq!(Domain::from_wire((4, "x".into())), None);
    }

    #[test]
    fn what_two_have_in_common_is_counted_by_kind_and_name() {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Domain>>();
        let one = all(&["owner:a", "site:a", "power:x"]);
        assert_eq!(shared(&one, &all(&["owner:a", "site:b", "power:x"])), 2);
        assert_eq!(shared(&one, &all(&["uplink:a", "power:a"])), 0);
        assert_eq!(shared(&one, &[]), 0);
    }
}
