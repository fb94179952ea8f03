//! The thread that is the switch: it reads the devices and the clock, and lets [`Switch`] think.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::frame::FRAME_BYTES_MAX;
use super::switch::Switch;

/// Frames read from one device before the others have their turn, and what is due is delivered.
const FRAMES_AT_ONCE: usize = 32;
/// Before those of nodes, so that a packet is not late because they compute.
const NICENESS: i32 = -15;
/// Orders that wait for the switch; whoever gives one waits for its end.
const ORDERS_MAX: usize = 16;

type Order = Box<dyn FnOnce(&mut Switch, u64) + Send>;

/// The running switch; ends with it.
pub(super) struct Pump {
    /// `None` while ending.
    orders: Option<SyncSender<Order>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pump")
    }
}

impl Pump {
    /// Begins to move frames between these devices, one of each node in the order of the topology.
    pub(super) fn start(switch: Switch, devices: Vec<File>) -> io::Result<Self> {
        let (orders, received) = sync_channel(ORDERS_MAX);
        let wake =
            Arc::new(eventfd(0, EventfdFlags::SEMAPHORE | EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let woken = wake.clone();
        let work = move || run(switch, &devices, &received, &woken);
        let thread = thread::Builder::new().name("switch".to_owned()).spawn(work)?;
        Ok(Self { orders: Some(orders), wake, thread: Some(thread) })
    }

    /// Has the switch do something, with the time of its clock; waits for the result.
    pub(super) fn order<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Switch, u64) -> T + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::other("the switch has ended");
        let (reply, result) = sync_channel(1);
        let order: Order = Box::new(move |switch, now_us| {
            // Whoever asked waits for it below.
            let _ = reply.send(act(switch, now_us));
        });
        self.orders.as_ref().ok_or_else(gone)?.send(order).map_err(|_| gone())?;
        self.wake()?;
        result.recv().map_err(|_| gone())
    }

    fn wake(&self) -> io::Result<()> {
        rustix::io::write(&*self.wake, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.orders = None;
        // Should it not be woken, it ends with the next packet or not at all; joining would hang.
        if self.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn run(mut switch: Switch, devices: &[File], orders: &Receiver<Order>, woken: &OwnedFd) {
    // Both make it only better; without rights they fail.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    let begin = Instant::now();
    let now_us = || begin.elapsed().as_micros() as u64;
    let mut frame = vec![0; FRAME_BYTES_MAX];
    // A node whose device is gone or full loses the packet, as it would on a wire.
    let mut arrivals = |node: usize, frame: &[u8]| {
        let _ = (&devices[node]).write(frame);
    };
    loop {
        switch.deliver_due(now_us(), &mut arrivals);
        let until_due = switch.next_due_us().map(|due_us| due_us.saturating_sub(now_us()));
        let mut ready: Vec<PollFd<'_>> =
            devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
        ready.push(PollFd::new(woken, PollFlags::IN));
        let patience = until_due.and_then(|us| Timespec::try_from(Duration::from_micros(us)).ok());
        if poll(&mut ready, patience.as_ref()).is_err() {
            continue;
        }
        let is_ready: Vec<bool> = ready.iter().map(|device| !device.revents().is_empty()).collect();
        for (node, device) in devices.iter().enumerate().filter(|(node, _)| is_ready[*node]) {
            switch.deliver_due(now_us(), &mut arrivals);
            for _ in 0..FRAMES_AT_ONCE {
                let Ok(bytes) = (&*device).read(&mut frame) else { break };
                // Of each frame anew: while others are passed on, some have come that were not there before, and
                // would else arrive before their time.
                switch.take(now_us(), node, &mut frame[..bytes], &mut arrivals);
            }
        }
        if is_ready[devices.len()] {
            // One order for each time that it was woken: so what nodes had sent before an order was given
            // has been read before it is done.
            let _ = rustix::io::read(woken, &mut [0; 8]);
            match orders.try_recv() {
                Ok(order) => order(&mut switch, now_us()),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}
