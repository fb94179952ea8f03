//! What the mesh was asked to run: the newest version of each name, taken-back ones included.

use std::collections::BTreeMap;
use std::sync::Arc;

use stormo_protocol::ids::{DeploymentId, VariantId};
use stormo_protocol::limits::DEPLOYMENTS_MAX;
use stormo_protocol::state::{Deployment, Variant};

use super::{Applied, Heard, Said};

/// A deployment as its publisher signed it.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What is wished.
    pub deployment: Arc<Deployment>,
    /// The same as it was heard, for passing on.
    pub heard: Heard,
}

/// All deployments that are known, by name.
#[derive(Debug, Default)]
pub struct Deployments {
    by_name: BTreeMap<String, Wish>,
}

/// Of two wishes for one name, the one that counts: a name belongs to one publisher (the smaller
/// id, where two took it at the same moment), and of one publisher's versions the highest counts,
/// taken back before still wished.
fn rank(deployment: &Deployment) -> (std::cmp::Reverse<[u8; 32]>, u64, bool) {
    (std::cmp::Reverse(deployment.publisher.0), deployment.version, deployment.removed)
}

impl Deployments {
    /// Takes in a deployment.
    pub fn apply(&mut self, heard: &Heard) -> Applied {
        let Said::Deployment(deployment) = heard.said() else { return Applied::Refused };
        let deployment = deployment.clone();
        match self.by_name.get(&deployment.name) {
            Some(known) if rank(&known.deployment) >= rank(&deployment) => Applied::Old,
            None if self.by_name.len() >= DEPLOYMENTS_MAX => Applied::Refused,
            _ => {
                self.by_name.insert(deployment.name.clone(), Wish { deployment, heard: heard.clone() });
                Applied::News
            }
        }
    }

    /// The live deployment of a name.
    pub fn by_name(&self, name: &str) -> Option<&Deployment> {
        self.known(name).filter(|deployment| !deployment.removed)
    }

    /// The newest deployment of a name, taken back or not.
    pub fn known(&self, name: &str) -> Option<&Deployment> {
        self.by_name.get(name).map(|wish| &*wish.deployment)
    }

    /// The live deployment of an id.
    pub fn by_id(&self, id: DeploymentId) -> Option<&Deployment> {
        self.live().find(|deployment| deployment.id() == id)
    }

    /// A variant of a live deployment.
    pub fn variant(&self, id: VariantId) -> Option<(&Deployment, &Variant)> {
        let deployment = self.by_id(id.deployment)?;
        Some((deployment, deployment.variants.get(usize::from(id.index))?))
    }

    /// All live deployments, by name.
    pub fn live(&self) -> impl Iterator<Item = &Deployment> {
        self.by_name.values().map(|wish| &*wish.deployment).filter(|deployment| !deployment.removed)
    }

    /// Which versions are held: what a sync exchange asks with.
    pub fn digest(&self) -> Vec<(DeploymentId, bool)> {
        self.by_name.values().map(|wish| (wish.deployment.id(), wish.deployment.removed)).collect()
    }

    /// Deployments held here that the asker does not hold in this state.
    pub fn unknown_to(&self, digest: &[(DeploymentId, bool)]) -> Vec<Heard> {
        self.by_name
            .values()
            .filter(|wish| !digest.contains(&(wish.deployment.id(), wish.deployment.removed)))
            .map(|wish| wish.heard.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormo_protocol::ids::{NodeId, ObjectId};
    use stormo_protocol::model::ObjectRef;
    use stormo_protocol::state::{Signed, Topic};

    fn heard(name: &str, publisher: u8, version: u64, removed: bool) -> Heard {
        let manifest = ObjectRef { id: ObjectId([version as u8; 32]), bytes: 1 };
        let variant = Variant { label: "base".into(), manifest, accuracy: None };
        let deployment = Deployment {
            name: name.into(),
            version,
            publisher: NodeId([publisher; 32]),
            variants: vec![variant],
            removed,
        };
        let (author, body) = (deployment.publisher, deployment.to_bytes());
        Heard::read(Signed { topic: Topic::Deployment, author, signature: vec![], body }).unwrap()
    }

    #[test]
    fn the_highest_version_counts_and_removal_stays() {
        let mut deployments = Deployments::default();
        assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::News);
        assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::News);
        assert_eq!(deployments.apply(&heard("a", 1, 1, false)), Applied::Old);
        assert_eq!(deployments.apply(&heard("a", 1, 2, true)), Applied::News);
        assert_eq!(deployments.apply(&heard("a", 1, 2, false)), Applied::Old);
        assert!(deployments.by_name("a").is_none());
        assert_eq!(deployments.apply(&heard("a", 1, 3, false)), Applied::News);
        assert_eq!(deployments.by_name("a").unwrap().version, 3);
    }

    #[test]
    fn two_publishers_of_a_name_end_alike_everywhere() {
        for order in [[1, 2], [2, 1]] {
            let mut deployments = Deployments::default();
            for publisher in order {
                deployments.apply(&heard("a", publisher, u64::from(publisher), false));
            }
            assert_eq!(deployments.by_name("a").unwrap().publisher, NodeId([1; 32]));
        }
    }

    #[test]
    fn what_another_lacks_is_told() {
        let (mut a, mut b) = (Deployments::default(), Deployments::default());
        a.apply(&heard("x", 1, 1, false));
        b.apply(&heard("x", 1, 1, false));
        a.apply(&heard("x", 1, 1, true));
        let news = a.unknown_to(&b.digest());
        assert_eq!(news.len(), 1);
        assert_eq!(b.apply(&news[0]), Applied::News);
        assert!(a.unknown_to(&b.digest()).is_empty());
    }
}
