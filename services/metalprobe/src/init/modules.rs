//! Drivers: which modules of the image the hardware asks for, and in which order they are loaded.

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    fs::File,
    path::{Path, PathBuf},
};

/// Modules that hardware does not ask for by itself.
const ALWAYS: [&str; 5] = ["af_packet", "sd_mod", "sr_mod", "mmc_block", "mlx4_en"];
/// Parameters of a module. Disks are looked for before its driver is said to be ready.
const PARAMETERS: [(&str, &CStr); 1] = [("scsi_mod", c"scan=sync")];

/// The modules of one kernel, as `depmod` describes them.
#[derive(Default)]
pub(super) struct Modules {
    folder: PathBuf,
    /// Pattern of a device, and the module that drives such.
    aliases: Vec<(String, String)>,
    /// By name: its file, and those of the modules that it needs, the last of which is loaded first.
    files: HashMap<String, Vec<String>>,
    /// By name: those that are to be loaded before.
    before: HashMap<String, Vec<String>>,
    done: HashSet<String>,
}

/// Module names may be written either way.
fn name(text: &str) -> String {
    let file = text.rsplit('/').next().unwrap_or(text);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Modules {
    /// Reads the only folder of modules there.
    pub(super) fn read(folder: &Path) -> Self {
        let kernel = std::fs::read_dir(folder).ok().and_then(|mut all| all.next()?.ok());
        let Some(kernel) = kernel else { return Self::default() };
        let text = |file: &str| std::fs::read_to_string(kernel.path().join(file)).unwrap_or_default();
        Self::parse(
            kernel.path(),
            &text("modules.alias"),
            &text("modules.dep"),
            &text("modules.softdep"),
        )
    }

    fn parse(folder: PathBuf, alias: &str, dep: &str, softdep: &str) -> Self {
        let aliases = alias.lines().filter_map(|line| {
            let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
            Some((pattern.to_owned(), name(module)))
        });
        let files = dep.lines().filter_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let all = std::iter::once(file).chain(needs.split_whitespace()).map(str::to_owned);
            Some((name(file), all.collect()))
        });
        let before = softdep.lines().filter_map(|line| {
            let mut words = line.strip_prefix("softdep ")?.split_whitespace();
            let module = name(words.next()?);
            let pre = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
            Some((module, pre.map(name).collect()))
        });
        Self {
            aliases: aliases.collect(),
            files: files.collect(),
            before: before.collect(),
            folder,
            done: HashSet::new(),
        }
    }

    /// The files to load for these devices, in this order; each once.
    fn plan(&mut self, devices: &[String]) -> Vec<PathBuf> {
        let asked = devices.iter().flat_map(|device| {
            let fits = self
                .aliases
                .iter()
                .filter(|(pattern, _)| matches(pattern.as_bytes(), device.as_bytes()));
            fits.map(|(_, module)| module.clone())
        });
        let wanted: Vec<String> = ALWAYS.iter().map(|module| (*module).to_owned()).chain(asked).collect();
        let mut plan = Vec::new();
        for module in wanted {
            for before in self.before.get(&module).cloned().unwrap_or_default() {
                self.add(&before, &mut plan);
            }
            self.add(&module, &mut plan);
        }
        plan
    }

    fn add(&mut self, module: &str, plan: &mut Vec<PathBuf>) {
        for file in self.files.get(module).cloned().unwrap_or_default().iter().rev() {
            if self.done.insert(name(file)) {
                plan.push(self.folder.join(file));
            }
        }
    }

    /// Loads what the devices below this folder ask for, until no more appear.
    pub(super) fn load_for(&mut self, devices: &Path) {
        loop {
            let mut found = Vec::new();
            modaliases(devices, &mut found);
            let plan = self.plan(&found);
            if plan.is_empty() {
                return;
            }
            for file in plan {
                let module = name(&file.display().to_string());
                let known = PARAMETERS.iter().find(|(of, _)| *of == module);
                let parameters = known.map_or(c"", |(_, parameters)| parameters);
                let loaded = File::open(&file).map_err(|e| e.to_string()).and_then(|file| {
                    match rustix::system::finit_module(&file, parameters, 0) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                        Err(error) => Err(error.to_string()),
                    }
                });
                if let Err(error) = loaded {
                    say!("metalprobe: {}: {error}", file.display());
                }
            }
        }
    }
}

/// What the devices below a folder say that they are.
fn modaliases(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // Links lead to devices that are found elsewhere.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => modaliases(&entry.path(), found),
            // Not every device has a file of its own for it: memory cards have not.
            Ok(kind) if kind.is_file() && entry.file_name() == "uevent" => {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.strip_prefix("MODALIAS=")).map(str::to_owned));
            }
            _ => {}
        }
    }
}

/// Whether a text fits a pattern of `*`, `?` and `[…]`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', rest @ ..] => (0..=text.len()).any(|skip| text.get(skip..).is_some_and(|text| matches(rest, text))),
        [b'?', rest @ ..] => matches!(text, [_, tail @ ..] if matches(rest, tail)),
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let (set, rest) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
            matches!(text, [byte, tail @ ..] if within(set, *byte) && matches(rest, tail))
        }
        [byte, rest @ ..] => matches!(text, [other, tail @ ..] if byte == other && matches(rest, tail)),
    }
}

fn within(set: &[u8], byte: u8) -> bool {
    match set {
        [from, b'-', to, rest @ ..] => (*from..=*to).contains(&byte) || within(rest, byte),
        [one, rest @ ..] => *one == byte || within(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_the_kernel_means_them() {
        let nvme = "pci:v00008086d00000A54sv00008086sd00004702bc01sc08i02";
        for (pattern, text, fits) in [
            ("pci:v*d*sv*sd*bc01sc08i02*", nvme, true),
            ("pci:v00008086d00000A54sv*sd*bc*sc*i*", nvme, true),
            ("pci:v00008086d00000A55sv*sd*bc*sc*i*", nvme, false),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc0[1-6]ip50in*",
                "usb:v0781p5567d0100dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc0[1-57]ip50in*",
                "usb:v0781p5567d0100dc00dsc00dp00ic08isc06ip50in00",
                false,
            ),
            ("acpi*:PNP0A0?:*", "acpi:PNP0A03:", true),
            ("a[", "a[", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_each_once() {
        let mut modules = Modules::parse(
            PathBuf::from("/m"),
            "# Aliases\nalias pci:v*bc01sc06* ahci\nalias pci:v*bc02* e1000e\nalias pci:vAA* e1000-e\n",
            "kernel/ahci.ko: kernel/libahci.ko kernel/libata.ko kernel/scsi_mod.ko\nkernel/libata.ko: kernel/scsi_mod.ko\nkernel/sd_mod.ko: kernel/t10-pi.ko kernel/scsi_mod.ko\nkernel/e1000e.ko:\nkernel/crc.ko.xz:\n",
            "softdep ahci post: x pre: crc\nsoftdep e1000e pre: crc post: nothing\n",
        );
        let files = |plan: Vec<PathBuf>| plan.iter().map(|file| name(&file.display().to_string())).collect::<Vec<_>>();
        let first = files(modules.plan(&["pci:v8086bc01sc06i01".to_owned()]));
        assert_eq!(first, ["scsi_mod", "t10_pi", "sd_mod", "crc", "libata", "libahci", "ahci"]);
        assert_eq!(
            files(modules.plan(&["pci:vAAbc01sc06".to_owned(), "pci:v1bc02".to_owned()])),
            ["e1000e"]
        );
        assert!(modules.plan(&["pci:v1bc02".to_owned(), "acpi:X".to_owned()]).is_empty());
    }
}
