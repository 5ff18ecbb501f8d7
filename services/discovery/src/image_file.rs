//! The file of the agent's image, and the window in it that is filled while it is read.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

use hyper::body::Bytes;
use ironyard_types::agent_image::{AgentConfiguration, MARKER, WINDOW};

use crate::image::Error;

/// How much is read from the disk at a time.
const CHUNK: u64 = 256 << 10;

/// An image and the place of the window in it.
#[derive(Debug)]
pub(crate) struct Image {
    file: Option<File>,
    pub(crate) length: u64,
    window: u64,
}

impl Image {
    pub(crate) fn simulated() -> Self {
        Self {
            file: None,
            length: WINDOW as u64,
            window: 0,
        }
    }

    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let windows = find(&file, length).map_err(failed)?;
        match windows[..] {
            [window] => Ok(Self {
                file: Some(file),
                length,
                window,
            }),
            _ => Err(Error(format!(
                "{} has {} places for the configuration of a run, and must have one: is it an agent image of this version?",
                path.display(),
                windows.len()
            ))),
        }
    }

    /// Bytes from here on, at most a chunk, with this window.
    pub(crate) fn read(&self, range: Range<u64>, window: &[u8]) -> io::Result<Bytes> {
        let end = range.end.min(range.start + CHUNK);
        let mut bytes = vec![0; usize::try_from(end - range.start).unwrap_or_default()];
        if let Some(file) = &self.file {
            file.read_exact_at(&mut bytes, range.start)?;
        }
        for (at, byte) in (range.start..end).zip(&mut bytes) {
            let within = at.checked_sub(self.window).and_then(|n| window.get(usize::try_from(n).ok()?));
            *byte = within.copied().unwrap_or(*byte);
        }
        Ok(bytes.into())
    }
}

/// Where empty windows begin.
fn find(file: &File, length: u64) -> io::Result<Vec<u64>> {
    let empty = AgentConfiguration::empty_window();
    let (mut found, mut start, mut window) = (Vec::new(), 0, vec![0; WINDOW]);
    let mut buffer = vec![0; 1 << 20];
    let mut reader = file;
    let mut carried = 0;
    loop {
        let read = reader.read(&mut buffer[carried..])?;
        if read == 0 {
            return Ok(found);
        }
        let filled = carried + read;
        let text = &buffer[..filled];
        for at in text
            .windows(MARKER.len())
            .enumerate()
            .filter(|(_, w)| w == MARKER)
            .map(|(at, _)| at as u64)
        {
            let at = start + at;
            if at + WINDOW as u64 <= length {
                file.read_exact_at(&mut window, at)?;
                if window == empty && !found.contains(&at) {
                    found.push(at);
                }
            }
        }
        // A marker may lie across two reads.
        carried = filled.min(MARKER.len() - 1);
        buffer.copy_within(filled - carried..filled, 0);
        start += (filled - carried) as u64;
    }
}

#[cfg(test)]
mod tests {
    use ironyard_types::Secret;

    use super::*;

    #[test]
    fn the_window_is_found_wherever_it_lies_and_filled_while_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let write = |parts: &[&[u8]]| std::fs::write(&path, parts.concat()).unwrap();
        let empty = AgentConfiguration::empty_window();
        let configuration = AgentConfiguration {
            discovery: "https://d".into(),
            token: Secret::new("t".into()),
            authority: String::new(),
            begun: ironyard_types::Timestamp(1),
        };
        let window = configuration.window().unwrap();
        for before in [0, 1, 512, (1 << 20) - 5, (1 << 20) - 31, (1 << 20) + 1, 3 << 20] {
            write(&[&vec![7; before], &empty, &[9; 1000]]);
            let image = Image::open(&path).unwrap();
            assert_eq!((image.window, image.length), (before as u64, before as u64 + 8192 + 1000));
            let (mut at, mut all) = (0, Vec::new());
            while at < image.length {
                let bytes = image.read(at..image.length, &window).unwrap();
                at += bytes.len() as u64;
                all.extend_from_slice(&bytes);
            }
            assert!(all[..before].iter().all(|b| *b == 7) && all[before + 8192..] == [9; 1000]);
            assert_eq!(
                AgentConfiguration::from_window(&all[before..before + 8192]),
                Ok(configuration.clone())
            );
        }
        for unusable in [&[&b"nothing"[..]][..], &[&empty, &empty], &[MARKER, b"something else"]] {
            write(unusable);
            assert!(Image::open(&path).is_err());
        }
    }
}
