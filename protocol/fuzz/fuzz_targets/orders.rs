//! Orders, alone and in the envelopes and news that carry them; refusals of any version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::codec::{decode, encode};
use stormo_protocol::exchange::News;
use stormo_protocol::limits::PLACES_MAX;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{Domain, Order, Signed, Topic};

fn checked(order: &Order) {
    assert!(order.sequence >= 1 && (1..=PLACES_MAX).contains(&order.places.len()));
    assert!(order.places.iter().all(|place| place.first < place.end));
    assert_eq!(Order::from_bytes(&order.to_bytes()).as_ref(), Ok(order));
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(order) = Order::from_bytes(bytes) {
        checked(&order);
    }
    let carried = News::from_bytes(bytes).map(|news| news.records).unwrap_or_default();
    for signed in carried.into_iter().chain(Signed::from_bytes(bytes)) {
        if signed.topic == Topic::Order
            && let Ok(order) = Order::from_bytes(&signed.body)
        {
            checked(&order);
        }
    }
    if let Ok(refusal) = decode::<Refusal, 16>(bytes) {
        assert_eq!(decode::<Refusal, 16>(&encode(&refusal)), Ok(refusal));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(domain) = text.parse::<Domain>()
    {
        assert_eq!(domain.to_string(), text);
    }
});
