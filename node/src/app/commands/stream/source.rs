//! Where frames come from: files of a folder, a folder into which files come, images or raw pixels on standard input.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant, SystemTime};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use stormo_protocol::tensor::Tensor;

use super::framing::next_image;
use super::window::Window;
use crate::app::cli::StreamArgs;
use crate::app::client::CommandError;
use crate::app::commands::here;
use crate::app::commands::inputs::{image_input, read_input};
use crate::app::commands::local::note;
use crate::ends::ENCODED_BYTES_MAX;
use crate::serve::json::ModelView;

/// Between two looks into a folder. A file counts once it is the same in two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Read at once from standard input.
const READ_BYTES: usize = 256 << 10;
/// Files of a folder that are frames.
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "npy", "npz"];

/// One thing to ask about.
#[derive(Debug)]
pub(super) struct Frame {
    /// From 0 on, in the order of the source.
    pub(super) number: u64,
    /// The file's name, if it is one.
    pub(super) name: Option<String>,
    /// What the model is given, or why that cannot be read.
    pub(super) inputs: Result<Vec<Tensor>, CommandError>,
}

/// Where they come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Files, so many times over; 0 is for ever.
    Files { paths: Vec<PathBuf>, times: u64 },
    /// What is in a folder, and what comes into it.
    Watched(PathBuf),
    /// JPEG and PNG images on standard input.
    Images,
    /// RGB frames of this width and height there.
    Raw([u32; 2]),
}

impl Source {
    /// The source that is meant.
    ///
    /// # Errors
    /// When it is not there, is empty, or the arguments contradict each other.
    pub(super) fn of(args: &StreamArgs) -> Result<Self, CommandError> {
        let path = Path::new(&args.source);
        if args.source == "-" {
            if args.watch || args.times != 1 {
                return Err(here("--watch and --times are for folders; standard input comes once"));
            }
            return Ok(args.raw.map_or(Self::Images, Self::Raw));
        }
        if args.raw.is_some() {
            return Err(here("--raw is for frames on standard input: give `-` as the source"));
        }
        let kind = fs::metadata(path).map_err(|error| here(format!("`{}`: {error}", path.display())))?;
        if args.watch {
            let is_folder = kind.is_dir().then(|| Self::Watched(path.to_owned()));
            return is_folder.ok_or_else(|| here(format!("`{}` is no folder to watch", path.display())));
        }
        if !kind.is_dir() {
            return Ok(Self::Files { paths: vec![path.to_owned()], times: args.times });
        }
        let paths: Vec<PathBuf> = files(path)?.into_keys().collect();
        if paths.is_empty() {
            return Err(here(format!(
                "`{}` holds no .jpg, .png, .npy or .npz files; --watch waits for some",
                path.display()
            )));
        }
        Ok(Self::Files { paths, times: args.times })
    }

    /// Gives all frames in, at so many a second if said, until there are none or nobody wants more.
    ///
    /// # Errors
    /// When the source breaks.
    pub(super) fn give(
        self,
        model: &ModelView,
        fps: Option<f64>,
        window: &Window<Frame>,
    ) -> Result<(), CommandError> {
        let noted = Once::new();
        let note = |text: &str| noted.call_once(|| note(format_args!("note: {text}")));
        let mut giving = Giving::new(fps, window);
        let of_file = |path: &Path| {
            let mut inputs = Vec::new();
            read_input(path, None, model, &mut inputs, note).map(|()| inputs)
        };
        match self {
            Self::Files { paths, times } => {
                let mut round = 0;
                while times == 0 || round < times {
                    for path in &paths {
                        if !giving.give(name_of(path), || of_file(path)) {
                            return Ok(());
                        }
                    }
                    round += 1;
                }
                Ok(())
            }
            Self::Watched(folder) => {
                let mut seen = BTreeMap::new();
                while window.pause(Instant::now() + LOOK_EVERY) {
                    for path in new_files(&mut seen, files(&folder)?) {
                        if !giving.give(name_of(&path), || of_file(&path)) {
                            return Ok(());
                        }
                    }
                }
                Ok(())
            }
            Self::Images => {
                let mut stream = BufReader::with_capacity(READ_BYTES, io::stdin().lock());
                while let Some(image) = next_image(&mut stream, ENCODED_BYTES_MAX).map_err(|error| {
                    here(format!("standard input, after {} frames: {error}", giving.number))
                })? {
                    if !giving.give(None, || Ok(vec![image_input(&image, model, note)?])) {
                        return Ok(());
                    }
                }
                Ok(())
            }
            Self::Raw(size) => {
                let mut stream = BufReader::with_capacity(READ_BYTES, io::stdin().lock());
                while let Some(pixels) = raw_frame(&mut stream, size).map_err(|error| {
                    here(format!("standard input, after {} frames: {error}", giving.number))
                })? {
                    let image = || Ok(vec![image_input(&png(&pixels, size).map_err(here)?, model, note)?]);
                    if !giving.give(None, image) {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}

/// Numbers frames and keeps the pace.
struct Giving<'a> {
    number: u64,
    every: Option<Duration>,
    next: Instant,
    window: &'a Window<Frame>,
}

impl<'a> Giving<'a> {
    fn new(fps: Option<f64>, window: &'a Window<Frame>) -> Self {
        let every = fps.map(|fps| Duration::from_secs_f64(1.0 / fps));
        Self { number: 0, every, next: Instant::now(), window }
    }

    /// Whether more are wanted.
    fn give(
        &mut self,
        name: Option<String>,
        read: impl FnOnce() -> Result<Vec<Tensor>, CommandError>,
    ) -> bool {
        if let Some(every) = self.every {
            if !self.window.pause(self.next) {
                return false;
            }
            // What was missed while the window was full is not made up for.
            self.next = (self.next + every).max(Instant::now());
        }
        let frame = Frame { number: self.number, name, inputs: read() };
        self.number += 1;
        self.window.put(frame)
    }
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// What tells a file that is still written from one that is whole.
type State = (u64, Option<SystemTime>);

/// Frames of a folder, by name.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, State>, CommandError> {
    let told = |error: io::Error| here(format!("`{}`: {error}", folder.display()));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(told)? {
        let path = entry.map_err(told)?.path();
        let extension =
            path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            continue;
        }
        // One that went away meanwhile is none.
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            files.insert(path, (metadata.len(), metadata.modified().ok()));
        }
    }
    Ok(files)
}

/// Those that are whole now and were not before. What is remembered goes with the files.
fn new_files(seen: &mut BTreeMap<PathBuf, (State, bool)>, now: BTreeMap<PathBuf, State>) -> Vec<PathBuf> {
    seen.retain(|path, _| now.contains_key(path));
    let mut new = Vec::new();
    for (path, state) in now {
        let (before, is_given) =
            seen.get(&path).copied().map_or((None, false), |(state, given)| (Some(state), given));
        // A file that is written anew is a frame anew.
        let is_whole = before == Some(state);
        let is_new = is_whole && !is_given && state.0 > 0;
        seen.insert(path.clone(), (state, is_new || (is_whole && is_given)));
        if is_new {
            new.push(path);
        }
    }
    new
}

/// The pixels of the next frame; none at the end of the stream.
fn raw_frame(stream: &mut impl Read, [width, height]: [u32; 2]) -> io::Result<Option<Vec<u8>>> {
    let bytes = 3 * u64::from(width) * u64::from(height);
    let mut pixels = Vec::new();
    stream.take(bytes).read_to_end(&mut pixels)?;
    match pixels.len() as u64 {
        0 => Ok(None),
        read if read == bytes => Ok(Some(pixels)),
        read => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "the stream ends inside a frame ({read} of {bytes} bytes); is --raw {width}x{height} right?"
            ),
        )),
    }
}

/// As quickly packed as possible: it only goes to the node.
fn png(pixels: &[u8], [width, height]: [u32; 2]) -> Result<Vec<u8>, image::ImageError> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::NoFilter).write_image(
        pixels,
        width,
        height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_frames_once_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = BTreeMap::new();
        let mut look = || {
            let new = new_files(&mut seen, files(folder.path()).unwrap());
            new.iter().filter_map(|path| name_of(path)).collect::<Vec<_>>()
        };
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("b.jpg", b"half");
        write("notes.txt", b"none");
        write("empty.png", b"");
        assert!(look().is_empty(), "it may still be written");
        write("b.jpg", b"half and half");
        assert!(look().is_empty());
        write("a.PNG", b"whole");
        assert_eq!(look(), ["b.jpg"]);
        assert_eq!(look(), ["a.PNG"]);
        assert!(look().is_empty());
        write("b.jpg", b"another one under its name");
        assert!(look().is_empty());
        assert_eq!(look(), ["b.jpg"]);
        fs::remove_file(folder.path().join("a.PNG")).unwrap();
        assert!(look().is_empty());
        write("a.PNG", b"whole");
        assert!(look().is_empty());
        assert_eq!(look(), ["a.PNG"], "it came again");
    }

    #[test]
    fn raw_frames_are_cut_by_their_size() {
        let bytes: Vec<u8> = (0..2 * 2 * 3 * 3).collect();
        let mut stream = &bytes[..];
        assert_eq!(raw_frame(&mut stream, [3, 2]).unwrap().unwrap(), bytes[..18]);
        assert_eq!(raw_frame(&mut stream, [3, 2]).unwrap().unwrap(), bytes[18..]);
        assert_eq!(raw_frame(&mut stream, [3, 2]).unwrap(), None);
        let error = raw_frame(&mut &bytes[..20], [3, 3]).unwrap_err().to_string();
        assert!(error.contains("20 of 27 bytes"), "{error}");
        let decoded = image::load_from_memory(&png(&bytes[..18], [3, 2]).unwrap()).unwrap();
        assert_eq!(decoded.to_rgb8().into_raw(), bytes[..18]);
    }
}
