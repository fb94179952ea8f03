//! A steady load: requests one after the other from several callers, and how each of them ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::client::{ApiError, Client};
use crate::oip::{InferAnswer, InferRequest};
use crate::wait::{self, WaitError};

/// How a request ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which of the requests it was.
    pub index: usize,
    /// The answer, or why there is none.
    pub result: Result<InferAnswer, ApiError>,
}

/// Callers that send until told to end.
#[derive(Debug)]
pub struct Load {
    ended: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to send these requests, in turns and again and again, by so many callers.
    pub fn begin(client: &Client, model: &str, requests: &[InferRequest], callers: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let callers = (0..callers).map(|caller| {
            let (client, model, requests) = (client.clone(), model.to_owned(), requests.to_vec());
            let (ended, outcomes) = (ended.clone(), outcomes.clone());
            thread::spawn(move || {
                let mut index = caller % requests.len();
                while !ended.load(Ordering::Relaxed) {
                    let result = client.infer(&model, &requests[index]);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push(Outcome { index, result });
                    index = (index + 1) % requests.len();
                }
            })
        });
        let callers = callers.collect();
        Self { ended, outcomes, callers }
    }

    /// Requests that have ended so far.
    pub fn count(&self) -> usize {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many more requests have ended.
    ///
    /// # Errors
    /// When they have not in time.
    pub fn wait_for_more(&self, more: usize, within: Duration) -> Result<(), WaitError> {
        let wanted = self.count() + more;
        wait::until("requests to end", within, || {
            let count = self.count();
            if count >= wanted { Ok(()) } else { Err(format!("{count} of {wanted}")) }
        })
    }

    /// Lets every caller end its request, and says how all went, in the order of their ends.
    pub fn end(self) -> Vec<Outcome> {
        self.ended.store(true, Ordering::Relaxed);
        for caller in self.callers {
            // A caller only calls; should it have panicked, its outcomes are there all the same.
            let _ = caller.join();
        }
        std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
