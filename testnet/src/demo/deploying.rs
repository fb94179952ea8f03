//! Second chapter: the network is divided into blocks and put on nodes.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context, Result};
use stormo::serve::json::{DeploymentState, DeploymentView, ModelView, TensorView};
use stormo_testnet::commands::Progress;
use stormo_testnet::digits;

use super::{Demo, MODEL, ORIGIN, shown};
use crate::table::{Align, Table};

/// The network is small: dividing, measuring and loading it takes seconds.
const DEPLOYED_MAX: Duration = Duration::from_secs(120);

/// Deploys the network; also says what its input is.
pub(super) fn tell(demo: &mut Demo) -> Result<(DeploymentView, TensorView)> {
    demo.narrator.title("the network");
    let client = demo.mesh.node(ORIGIN).client.clone();
    let model = digits::model();
    demo.narrator.say(&format!("At {ORIGIN}: stormo deploy {MODEL} {} --replicas 2", shown(&model)));
    let mut arguments: Vec<OsString> = vec!["deploy".into(), MODEL.into(), model.into()];
    arguments.extend(["--replicas", "2", "--api", client.base()].map(OsString::from));
    let deployment: DeploymentView = demo.mesh.stormo().json(&arguments, Progress::Shown, DEPLOYED_MAX)?;
    let models = client.models()?.models;
    let model = models.into_iter().find(|model| model.name == MODEL).context("the origin lists no model")?;
    show(demo, &model, &deployment);
    demo.narrator.check(
        deployment.state == DeploymentState::Ready,
        &format!(
            "the network is divided into {} blocks, and what was asked for is loaded",
            model.blocks.len()
        ),
    );
    let input = model.inputs.into_iter().next().context("the network has no input")?;
    Ok((deployment, input))
}

fn show(demo: &Demo, model: &ModelView, deployment: &DeploymentView) {
    let cuts = model.cuts.iter().map(|cut| cut.bytes);
    demo.narrator.say(&format!(
        "{} kB of weights, {} blocks of together {:.2} ms, {} to {} bytes at a cut.",
        model.weights_bytes / 1000,
        model.blocks.len(),
        model.time_ms,
        cuts.clone().min().unwrap_or(0),
        cuts.max().unwrap_or(0),
    ));
    let mut table = Table::new(&[
        ("host", Align::Left),
        ("blocks", Align::Left),
        ("state", Align::Left),
        ("run", Align::Right),
    ]);
    for host in &deployment.hosts {
        table.row([
            host.label.clone(),
            super::measured::blocks(host.blocks),
            format!("{:?}", host.state).to_lowercase(),
            host.time_ms.map_or_else(|| "-".to_owned(), |time_ms| format!("{time_ms:.2} ms")),
        ]);
    }
    demo.narrator.table(&table);
}
