//! What the build before this one sent, byte for byte: it must be read as what it meant, and what says nothing new
//! must be written as it was, so that nodes of both builds are one mesh.
//!
//! The bytes were written by the code of commit 13d9557 with the values below (`STORMO_PRINT_GOLDEN=1` prints those of
//! the code as it is).

use stormo_protocol::codec::payload::Codec;
use stormo_protocol::control::{Prepare, Request, Response};
use stormo_protocol::exchange::{Exchange, Held, News, ShortId};
use stormo_protocol::ids::{DeploymentId, MeshId, NodeId, ObjectId, RequestId, VariantId};
use stormo_protocol::model::ObjectRef;
use stormo_protocol::plan::{Plan, Stage};
use stormo_protocol::profile::Speeds;
use stormo_protocol::refusal::Refusal;
use stormo_protocol::state::{
    Accuracy, Class, Deployment, Division, GoalProgress, Hosted, HostingGoal, LinkEstimate, Load, Machine,
    NodeRecord, Offer, Order, Place, Signed, Stamp, Topic, Variant, Wished,
};

const NODE: NodeId = NodeId([1; 32]);
const OTHER: NodeId = NodeId([2; 32]);
const DEPLOYMENT: DeploymentId = DeploymentId([3; 16]);
const REQUEST: RequestId = RequestId([4; 16]);

fn variant() -> VariantId {
    VariantId { deployment: DEPLOYMENT, index: 1 }
}

fn record() -> NodeRecord {
    NodeRecord {
        node: NODE,
        stamp: Stamp { generation: 2, sequence: 300 },
        machine: Machine {
            label: "camera".into(),
            class: Class::Device,
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".into()],
            cores: 4,
            speeds: Speeds::new([5000.0; 5]),
            memory_budget_bytes: 1 << 30,
        },
        load: Load {
            memory_used_bytes: 5,
            utilisation_permille: 250,
            cold_us: 8000,
            cold_us_per_mb: 900,
            leaving: true,
        },
        offer: Offer { computes: true, stores: false, open: true },
        hosted: vec![Hosted {
            variant: variant(),
            first: 0,
            end: 4,
            time_us: 1500,
            p95_us: 1700,
            queue_wait_us: 70_000,
        }],
        links: vec![LinkEstimate { peer: OTHER, round_trip_us: 300, bytes_per_second: 1 << 27 }],
        coordinate: None,
        goals: vec![HostingGoal {
            variant: variant(),
            first: 4,
            end: 6,
            progress: GoalProgress::Refused(Refusal::KeptFree as u16),
        }],
        domains: vec![],
        demands: vec![],
    }
}

fn deployment(removed: bool) -> Deployment {
    let manifest = ObjectRef { id: ObjectId([5; 32]), bytes: 100_000 };
    let accuracy = Accuracy::of(0.75);
    Deployment {
        name: "digits".into(),
        version: 7,
        publisher: NODE,
        variants: vec![Variant { label: "base".into(), manifest, accuracy }],
        removed,
        removed_unix_s: 0,
        begun_unix_s: 0,
        wished: Wished { replicas: 2, division: Division::Parts(3) },
    }
}

fn order() -> Order {
    let place = |node| Place { node, variant: 1, first: 0, end: 4 };
    Order { deployment: DEPLOYMENT, sequence: 9, steward: OTHER, places: vec![place(NODE), place(OTHER)] }
}

fn signed() -> Signed {
    Signed { topic: Topic::Order, author: OTHER, signature: vec![6; 64], body: order().to_bytes() }
}

fn held() -> Held {
    Held { node: ShortId::from(NODE), stamp: Stamp { generation: 2, sequence: 300 }, beat: 1000 }
}

fn exchange() -> Exchange {
    Exchange { held: vec![held()], deployments: vec![(DEPLOYMENT, true)], coordinate: None }
}

fn news() -> News {
    News {
        records: vec![signed()],
        beats: vec![held()],
        wanted: vec![ShortId::from(OTHER)],
        more: true,
        coordinate: None,
    }
}

fn prepare() -> Prepare {
    let stage = |node, first, end| Stage {
        node,
        first,
        end,
        codec: Codec::Int8Lz4,
        backups: vec![OTHER],
        branch: None,
    };
    let stages = vec![stage(NODE, 0, 4), stage(OTHER, 4, 6)];
    let plan = Plan { variant: variant(), origin: NODE, stages, result_codec: Codec::Raw };
    Prepare { request: REQUEST, attempt: 2, plan, remaining_ms: 30_000 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every message, by its name.
fn all() -> Vec<(&'static str, Vec<u8>)> {
    let failed = Request::Failed { request: REQUEST, attempt: 2, stage: 1, reason: Refusal::SuccessorLost };
    vec![
        ("record", record().to_bytes()),
        ("deployment", deployment(false).to_bytes()),
        ("removal", deployment(true).to_bytes()),
        ("order", order().to_bytes()),
        ("signed", signed().to_bytes()),
        ("exchange", exchange().to_bytes()),
        ("news", news().to_bytes()),
        ("ask exchange", Request::Exchange(vec![1, 2]).to_bytes()),
        ("ask tell", Request::Tell(vec![1, 2]).to_bytes()),
        ("ask parting", Request::Parting.to_bytes()),
        ("ask state", Request::State.to_bytes()),
        ("ask prepare", Request::Prepare(prepare()).to_bytes()),
        ("ask failed", failed.to_bytes()),
        ("ask cancel", Request::Cancel { request: REQUEST, attempt: 2 }.to_bytes()),
        ("answer done", Response::Done.to_bytes()),
        ("answer refused", Response::Refused(Refusal::Closed).to_bytes()),
        ("answer news", Response::News(vec![1, 2]).to_bytes()),
        ("answer state", Response::State(signed()).to_bytes()),
        ("covered", Signed::covered(Topic::Order, MeshId([7; 16]), &[1, 2])),
        ("deployment id", deployment(false).id().0.to_vec()),
        ("plan id", prepare().plan.id().0.to_vec()),
    ]
}

const GOLDEN: &[(&str, &str)] = &[
    (
        "record",
        "010024000000010101010101010101010101010101010101010101010101010101010101010102fb2c0102004f000000\
         0663616d6572610001172f6970342f3132372e302e302e312f7463702f3430303104000000000088b340000000000088\
         b340000000000088b340000000000088b340000000000088b340fc0000004003000900000005fafb401ffb8403010800\
         0300000001000104001f0000000103030303030303030303030303030303010004fbdc05fba406fc7011010005002900\
         0000010202020202020202020202020202020202020202020202020202020202020202fb2c01fc000000080900160000\
         0001030303030303030303030303030303030104060117",
    ),
    (
        "deployment",
        "01005a000000066469676974730701010101010101010101010101010101010101010101010101010101010101010104\
         626173650505050505050505050505050505050505050505050505050505050505050505fca086010001fcb0710b0000\
         020003000000020103",
    ),
    (
        "removal",
        "01005a000000066469676974730701010101010101010101010101010101010101010101010101010101010101010104\
         626173650505050505050505050505050505050505050505050505050505050505050505fca086010001fcb0710b0001\
         020003000000020103",
    ),
    (
        "order",
        "010031000000030303030303030303030303030303030902020202020202020202020202020202020202020202020202\
         020202020202020200470000000201010101010101010101010101010101010101010101010101010101010101010100\
         040202020202020202020202020202020202020202020202020202020202020202010004",
    ),
    (
        "signed",
        "020202020202020202020202020202020202020202020202020202020202020202400606060606060606060606060606\
         060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606\
         060684010031000000030303030303030303030303030303030902020202020202020202020202020202020202020202\
         020202020202020202020200470000000201010101010101010101010101010101010101010101010101010101010101\
         010100040202020202020202020202020202020202020202020202020202020202020202010004",
    ),
    ("exchange", "01000e0000000d010101010101010102ac02e807020012000000010303030303030303030303030303030301"),
    (
        "news",
        "0100e8000000010202020202020202020202020202020202020202020202020202020202020202024006060606060606\
         060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606\
         060606060606060606840100310000000303030303030303030303030303030309020202020202020202020202020202\
         020202020202020202020202020202020202004700000002010101010101010101010101010101010101010101010101\
         010101010101010101000402020202020202020202020202020202020202020202020202020202020202020100040200\
         0e0000000d010101010101010102ac02e80703000900000001020202020202020204000100000001",
    ),
    ("ask exchange", "00020102"),
    ("ask tell", "01020102"),
    ("ask parting", "02"),
    ("ask state", "03"),
    (
        "ask prepare",
        "040404040404040404040404040404040402030303030303030303030303030303030101010101010101010101010101\
         010101010101010101010101010101010101010201010101010101010101010101010101010101010101010101010101\
         010101010004050102020202020202020202020202020202020202020202020202020202020202020202020202020202\
         020202020202020202020202020202020202020202020202040605010202020202020202020202020202020202020202\
         02020202020202020202020200fb3075",
    ),
    ("ask failed", "050404040404040404040404040404040402010b"),
    ("ask cancel", "060404040404040404040404040404040402"),
    ("answer done", "00"),
    ("answer refused", "0115"),
    ("answer news", "02020102"),
    (
        "answer state",
        "030202020202020202020202020202020202020202020202020202020202020202024006060606060606060606060606\
         060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606060606\
         060606840100310000000303030303030303030303030303030309020202020202020202020202020202020202020202\
         020202020202020202020202004700000002010101010101010101010101010101010101010101010101010101010101\
         01010100040202020202020202020202020202020202020202020202020202020202020202010004",
    ),
    ("covered", "73746f726d6f2031206f7264657200070707070707070707070707070707070102"),
    ("deployment id", "a456f468a4e28e973a21d62eb8f6b6e3"),
    ("plan id", "55766e4d9f96e606f013641d454a9060"),
];

#[test]
fn what_the_build_before_sent_is_read() {
    let bytes = |name: &str| {
        let (_, golden) = GOLDEN.iter().find(|(known, _)| *known == name).unwrap();
        let byte = |at: usize| u8::from_str_radix(&golden[at..at + 2], 16).unwrap();
        (0..golden.len()).step_by(2).map(byte).collect::<Vec<u8>>()
    };
    assert_eq!(NodeRecord::from_bytes(&bytes("record")), Ok(record()));
    assert_eq!(Deployment::from_bytes(&bytes("deployment")), Ok(deployment(false)));
    assert_eq!(Deployment::from_bytes(&bytes("removal")), Ok(deployment(true)));
    assert_eq!(Order::from_bytes(&bytes("order")), Ok(order()));
    assert_eq!(Signed::from_bytes(&bytes("signed")), Ok(signed()));
    assert_eq!(Exchange::from_bytes(&bytes("exchange")), Ok(exchange()));
    assert_eq!(News::from_bytes(&bytes("news")), Ok(news()));
    assert_eq!(Request::from_bytes(&bytes("ask prepare")), Ok(Request::Prepare(prepare())));
    assert_eq!(Response::from_bytes(&bytes("answer state")), Ok(Response::State(signed())));
}

#[test]
fn what_the_build_before_sent_is_what_this_one_sends() {
    let all = all();
    if std::env::var_os("STORMO_PRINT_GOLDEN").is_some() {
        all.iter().for_each(|(name, bytes)| println!("    (\"{name}\", \"{}\"),", hex(bytes)));
    }
    assert_eq!(all.len(), GOLDEN.len());
    for ((name, bytes), (golden_name, golden)) in all.iter().zip(GOLDEN) {
        assert_eq!((name, hex(bytes).as_str()), (golden_name, *golden));
    }
}
