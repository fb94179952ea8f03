//! Obtaining the library from programs that stand in for pip.

use std::sync::Mutex;

use super::*;

const CONTENT: &[u8] = b"not really a library";
const WRONG: Pin = Pin { platform: "any", sha256: "00" };

fn shell(folder: &Path, script: &str) -> Vec<String> {
    let path = folder.join("pip.sh");
    std::fs::write(&path, script).unwrap();
    vec!["sh".into(), path.to_str().unwrap().into()]
}

/// A pip that puts a wheel with this member into the folder that its last argument names.
fn pip_with(folder: &Path, member: &str) -> Vec<String> {
    let wheel = folder.join("given.whl");
    let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
    zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(CONTENT).unwrap();
    zip.finish().unwrap();
    shell(folder, &format!("for last; do :; done; echo called >> {0}.calls; cp {0} $last/", wheel.display()))
}

fn pin_of_content() -> Pin {
    Pin { platform: "any", sha256: sha256_of(&mut &CONTENT[..]).unwrap().leak() }
}

fn silent(_: &str) {}

#[test]
fn a_library_is_obtained_once_and_then_found() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, pip) = (folder.path().join("cache"), pip_with(folder.path(), MEMBER));
    let told = Mutex::new(Vec::new());
    let progress = |text: &str| told.lock().unwrap().push(text.to_owned());
    let library = obtain_once(&pin_of_content(), &cache, std::slice::from_ref(&pip), &progress).unwrap();
    assert_eq!(std::fs::read(&library).unwrap(), CONTENT);
    assert_eq!(told.lock().unwrap().len(), 2, "{told:?}");
    assert_eq!(obtain_once(&pin_of_content(), &cache, &[], &silent).unwrap(), library);
    // Only the library and the lock are left.
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 2);
}

#[test]
fn several_at_once_download_once() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, pip) = (folder.path().join("cache"), pip_with(folder.path(), MEMBER));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                obtain_once(&pin_of_content(), &cache, std::slice::from_ref(&pip), &silent).unwrap()
            });
        }
    });
    let calls = std::fs::read_to_string(folder.path().join("given.whl.calls")).unwrap();
    assert_eq!(calls.lines().count(), 1);
}

#[test]
fn a_damaged_library_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, pip) = (folder.path().join("cache"), pip_with(folder.path(), MEMBER));
    let library = obtain_once(&pin_of_content(), &cache, std::slice::from_ref(&pip), &silent).unwrap();
    std::fs::write(&library, b"half").unwrap();
    obtain_once(&pin_of_content(), &cache, &[pip], &silent).unwrap();
    assert_eq!(std::fs::read(&library).unwrap(), CONTENT);
}

#[test]
fn another_library_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, pip) = (folder.path().join("cache"), pip_with(folder.path(), MEMBER));
    let error = obtain_once(&WRONG, &cache, &[pip], &silent).unwrap_err();
    assert!(matches!(error, ObtainError::Hash { .. }), "{error}");
    assert!(!cache.join(FILE_NAME).exists());
}

#[test]
fn a_package_without_the_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pip = pip_with(folder.path(), "other");
    let error = obtain_once(&WRONG, &folder.path().join("cache"), &[pip], &silent).unwrap_err();
    assert!(matches!(&error, ObtainError::Package(text) if text.contains(MEMBER)), "{error}");
}

#[test]
fn without_pip_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let none = vec!["/nonexistent/pip".to_owned()];
    let no_module = shell(folder.path(), "echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let error = obtain_once(&WRONG, &folder.path().join("cache"), &[none, no_module], &silent).unwrap_err();
    assert!(matches!(error, ObtainError::NoPip), "{error}");
}

#[test]
fn the_last_error_of_pip_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let script = "echo 'ERROR: first'; echo 'ERROR: no matching distribution' >&2; echo 'a notice'; exit 1";
    let pip = shell(folder.path(), script);
    let error = obtain_once(&WRONG, &folder.path().join("cache"), &[pip], &silent).unwrap_err();
    assert!(matches!(&error, ObtainError::Pip(text) if text == "ERROR: no matching distribution"), "{error}");
    assert_eq!(last_error(&"x".repeat(1000)).len(), PIP_LINE_CHARS_MAX);
    assert_eq!(last_error(""), "it said nothing");
}
