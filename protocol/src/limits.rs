//! Every bound on what a peer may send or make us hold, with its unit. Nothing else.

/// Longest encoded control message, bytes. A page of 128 records of 8 KiB is the largest of them.
pub const CONTROL_BYTES_MAX: usize = 4 << 20;
/// Longest state record as gossiped, bytes.
pub const RECORD_BYTES_MAX: usize = 8 << 10;
/// Longest deployment record as gossiped, bytes: a placement that was told is the most of it.
pub const DEPLOYMENT_BYTES_MAX: usize = 8 << 10;
/// Places that an order, or a placement that was told, may list.
pub const PLACES_MAX: usize = 160;
/// Longest order as gossiped, bytes.
pub const ORDER_BYTES_MAX: usize = 8 << 10;
/// Ranges that a record may list as ordered and not hosted yet.
pub const GOALS_MAX: usize = 32;
/// Longest gossip message, bytes: one record with its signature.
pub const GOSSIP_BYTES_MAX: usize = 16 << 10;
/// Records of nodes that a view holds: 2 MB of them as they are, 16 MB at the most.
pub const VIEW_RECORDS_MAX: usize = 2048;
/// Nodes that an exchange may list: all of a view, and the asker.
pub const HELD_MAX: usize = VIEW_RECORDS_MAX + 1;
/// Records that one message of an exchange carries or asks for.
pub const EXCHANGE_RECORDS_MAX: usize = 128;
/// Deployments that a view holds, those apart that were taken back.
pub const DEPLOYMENTS_MAX: usize = 256;
/// Deployments that were taken back and are remembered, so that they do not return; the newest.
pub const TOMBSTONES_MAX: usize = 256;
/// Variants of a deployment.
pub const VARIANTS_MAX: usize = 8;
/// Ranges that a record may list as loaded.
pub const HOSTED_MAX: usize = 64;
/// Nodes whose addresses a node keeps over a restart, and the longest file of them, bytes: an address is far below 1 KiB.
pub const CONTACTS_MAX: usize = 32;
/// See [`CONTACTS_MAX`].
pub const CONTACTS_BYTES_MAX: usize = CONTACTS_MAX * ADDRESSES_MAX * 1024;
/// Links that a record may report.
pub const LINKS_MAX: usize = 32;
/// Failure domains that a record may list.
pub const DOMAINS_MAX: usize = 16;
/// Deployments for which a record may say how much is asked at its node.
pub const DEMANDS_MAX: usize = 16;
/// Addresses that a record may list.
pub const ADDRESSES_MAX: usize = 8;

/// Longest name of a model, variant or deployment, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest tensor name, bytes. Exporters write paths of modules here.
pub const TENSOR_NAME_BYTES_MAX: usize = 512;
/// Largest tensor rank.
pub const RANK_MAX: usize = 8;
/// Texts in one tensor: ONNX Runtime takes some hundred bytes for the shortest.
pub const TEXTS_MAX: u64 = 1 << 18;
/// All texts of one tensor with their lengths, bytes.
pub const TEXTS_BYTES_MAX: u64 = 16 << 20;
/// Tensors in one frame.
pub const FRAME_TENSORS_MAX: usize = 64;
/// Payload of one frame, bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: u64 = 256 << 20;
/// Descriptors of one frame, bytes.
pub const FRAME_DESCRIPTORS_BYTES_MAX: usize = 64 << 10;

/// Inputs that the joins of a node hold while others of theirs are missing, bytes. A guess: some hundred requests of
/// large activations; one frame of the largest fits.
pub const JOINING_BYTES_MAX: u64 = FRAME_PAYLOAD_BYTES_MAX;

/// Outputs of one run whose dimensions depend on values, all together, bytes.
pub const VARIABLE_OUTPUTS_BYTES_MAX: u64 = 64 << 20;

/// Items in the batch of one request.
pub const BATCH_ITEMS_MAX: u64 = 64;

/// Largest object that the pool stores or a peer may announce, bytes.
pub const OBJECT_BYTES_MAX: u64 = 2 << 30;
/// Largest encoded manifest, bytes.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a group: the unit in which objects travel and are verified. A power of two of at least
/// BLAKE3's chunk, so that groups are whole subtrees of its hash.
pub const OBJECT_GROUP_BYTES: u64 = 1 << 20;
/// Groups that one request for a part of an object may ask for.
pub const OBJECT_RUN_GROUPS_MAX: u32 = 64;
/// Bytes of one bandwidth probe.
pub const PROBE_BYTES_MAX: u64 = 256 << 10;

/// Nodes of a graph.
pub const GRAPH_NODES_MAX: usize = 100_000;
/// Blocks of a divided variant.
pub const BLOCKS_MAX: usize = 64;
/// Tensors that a manifest lists: twice what may cross all cuts, since branches have some of their own.
pub const TENSORS_MAX: usize = 2 * (BLOCKS_MAX + 1) * FRAME_TENSORS_MAX;
/// Tensors whose dimensions may vary: outputs, the encoded image and what is read from the outputs.
pub const VARIABLE_MAX: usize = FRAME_TENSORS_MAX + 2;
/// Stages of a plan.
pub const STAGES_MAX: usize = 64;
/// Successors that a stage may name besides its primary host.
pub const BACKUPS_MAX: usize = 4;
/// Longest encoded plan, bytes: all stages with all backups are some 11 KiB.
pub const PLAN_BYTES_MAX: usize = 16 << 10;
/// Longest time that a request may ask for, milliseconds.
pub const DEADLINE_MS_MAX: u32 = 600_000;
