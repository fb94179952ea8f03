//! What happens in a mesh, as a reader of `/v1/events` hears it.

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use stormo::serve::json::{EventView, Health, RequestsView, What};
use stormo_testnet::trial::{self, SOON, edge};
use stormo_testnet::{digits, wait};

/// What one reader has heard so far.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<EventView>>>);

impl Heard {
    /// Reads on a thread of its own until the node ends the stream; returns once it is connected.
    fn at(base: &str) -> Result<Self> {
        let heard = Self::default();
        let answer = ureq::get(format!("{base}/v1/events")).call()?;
        let kind = answer.headers().get("content-type").context("a type")?.to_str()?.to_owned();
        ensure!(kind.starts_with("text/event-stream"), "{kind}");
        let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
        let first = lines.next().context("a line at once")??;
        ensure!(first.starts_with(':'), "{first}");
        let told = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
                told.0.lock().unwrap_or_else(PoisonError::into_inner).extend(event);
            }
        });
        Ok(heard)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn after(&self, count: usize) -> Vec<What> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().skip(count).map(|event| event.what.clone()).collect()
    }

    fn wait_for(&self, what: &str, is_it: impl Fn(&What) -> bool) -> Result<What> {
        let found = wait::until(what, SOON, || {
            let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = heard.iter().find(|event| is_it(&event.what)).map(|event| event.what.clone());
            found.ok_or_else(|| format!("{:?}", heard.iter().map(|event| &event.what).collect::<Vec<_>>()))
        })?;
        Ok(found)
    }
}

#[test]
fn nodes_deployments_and_requests_are_told() -> Result<()> {
    trial::run(&[edge("one"), edge("two")], |mesh| {
        let base = mesh.node("one").client.base().to_owned();
        let heard = Heard::at(&base)?;
        mesh.add(&edge("three"))?;
        heard.wait_for(
            "`three` to join",
            |what| matches!(what, What::NodeJoined(of) if of.label == "three"),
        )?;
        trial::deploy(mesh, "one", "digits", &digits::model(), &["--replicas", "3"])?;
        heard.wait_for(
            "the deployment",
            |what| matches!(what, What::Deployed { model, .. } if model == "digits"),
        )?;
        heard.wait_for(
            "`three` to host",
            |what| matches!(what, What::NodeChanged(of) if of.label == "three"),
        )?;
        let ready = |what: &What| matches!(what, What::HealthChanged { now: Health::Ready, .. });
        heard.wait_for("it to be ready", ready)?;
        trial::check_reads(&mesh.node("one").client)?;
        let begun = heard.wait_for("a request", |what| matches!(what, What::RequestBegun { .. }))?;
        let What::RequestBegun { id: begun, .. } = begun else { unreachable!("it was waited for") };
        heard.wait_for("its end", |what| matches!(what, What::RequestEnded { id, latency_ms, .. } if *id == begun && *latency_ms > 0.0))?;
        let requests: RequestsView = mesh.node("one").client.get("/v1/requests")?;
        ensure!(
            requests.answered == 1 && requests.p50_ms.is_some() && requests.under_way == 0,
            "{requests:?}"
        );
        mesh.node_mut("three").kill()?;
        let gone =
            |what: &What| matches!(what, What::NodeLost(of) | What::NodeSuspected(of) if of.label == "three");
        heard.wait_for("the loss of `three`", gone)?;
        mesh.add(&edge("three"))?;
        heard.wait_for("its return", |what| matches!(what, What::NodeReturned(of) if of.label == "three"))?;
        let before = heard.count();
        mesh.node_mut("three").ask_to_end();
        // It says goodbye before its connections close.
        let going = wait::until("its going", SOON, || {
            let later = heard.after(before);
            let is_gone = |what: &&What| matches!(what, What::NodeLost(_) | What::NodeLeft(_));
            later.iter().find(is_gone).cloned().ok_or_else(|| format!("{later:?}"))
        })?;
        ensure!(matches!(&going, What::NodeLeft(of) if of.label == "three"), "{going:?}");
        Ok(())
    })
}
