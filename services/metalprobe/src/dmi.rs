//! The SMBIOS tables, as the kernel shows them raw (`/sys/firmware/dmi/tables/DMI`): memory modules live nowhere else.

use ironyard_types::hardware::MemoryModule;

/// One structure: its type, its formatted part, its strings.
struct Structure<'a> {
    kind: u8,
    data: &'a [u8],
    strings: Vec<String>,
}

impl Structure<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }

    fn word(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte(at)?, self.byte(at + 1)?]))
    }

    fn text(&self, at: usize) -> String {
        let index = usize::from(self.byte(at).unwrap_or(0));
        index.checked_sub(1).and_then(|i| self.strings.get(i)).cloned().unwrap_or_default()
    }
}

fn structures(table: &[u8]) -> Vec<Structure<'_>> {
    let (mut found, mut rest) = (Vec::new(), table);
    while let [kind, length, ..] = *rest {
        let Some((data, tail)) = rest.split_at_checked(usize::from(length).max(4)) else {
            break;
        };
        // Strings end with an empty one; a structure without any ends with two zeros.
        let Some(end) = tail.windows(2).position(|w| w == [0, 0]) else {
            break;
        };
        let strings = tail[..end]
            .split(|b| *b == 0)
            .map(|s| String::from_utf8_lossy(s).trim().to_owned())
            .collect();
        found.push(Structure { kind, data, strings });
        rest = &tail[end + 2..];
    }
    found
}

/// Memory modules that are present (SMBIOS type 17).
pub(crate) fn memory_modules(table: &[u8]) -> Vec<MemoryModule> {
    let module = |s: &Structure<'_>| {
        let capacity_mib = match s.word(0x0c)? {
            0 | 0xffff => return None,
            0x7fff => i64::from(u32::from_le_bytes([s.byte(0x1c)?, s.byte(0x1d)?, s.byte(0x1e)?, s.byte(0x1f)?])),
            kib if kib & 0x8000 != 0 => i64::from(kib & 0x7fff) / 1024,
            mib => i64::from(mib),
        };
        Some(MemoryModule {
            slot: s.text(0x10),
            manufacturer: s.text(0x17),
            serial_number: s.text(0x18),
            part_number: s.text(0x1a),
            capacity_mib,
            speed_mhz: s.word(0x15).map(i32::from).unwrap_or(0),
        })
    };
    structures(table).iter().filter(|s| s.kind == 17).filter_map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_read_and_rubbish_is_not() {
        let mut data = vec![0_u8; 0x28];
        (data[0], data[1], data[0x0c], data[0x0d], data[0x10], data[0x18]) = (17, 0x28, 0x00, 0x40, 1, 2);
        (data[0x15], data[0x16]) = (0xc0, 0x12);
        data.extend_from_slice(b"DIMM_A1\0SN42\0\0");
        data.extend_from_slice(&[127, 4, 0, 0, 0, 0]);
        let modules = memory_modules(&data);
        assert_eq!(modules.len(), 1);
        assert_eq!((modules[0].slot.as_str(), modules[0].serial_number.as_str()), ("DIMM_A1", "SN42"));
        assert_eq!((modules[0].capacity_mib, modules[0].speed_mhz), (16384, 4800));
        for cut in 0..data.len() {
            memory_modules(&data[..cut]);
        }
    }
}
