//! Generates the ONNX messages as the node's own build script does.

fn main() {
    println!("cargo:rerun-if-changed=../src/model/onnx.proto");
    protobuf_codegen::Codegen::new()
        .pure()
        .include("../src/model")
        .input("../src/model/onnx.proto")
        .cargo_out_dir("onnx")
        .run_from_script();
}
