//! Letters, digits and a few signs as pixels, to write a word beside a box. Drawing is not done here.

/// Columns and rows of a glyph.
pub(super) const WIDTH: u32 = 5;
pub(super) const HEIGHT: u32 = 7;
/// Columns from one glyph to the next, in the bands below and in a line of text alike but for one.
const COLUMNS: usize = WIDTH as usize + 2;
/// What stands for a character without a glyph.
const UNKNOWN: char = '?';

/// Whether a character has ink there. Small letters look like capitals.
pub(super) fn has_ink(character: char, column: u32, row: u32) -> bool {
    let character = character.to_ascii_uppercase();
    character != ' ' && (find(character, column, row).or_else(|| find(UNKNOWN, column, row)) == Some(true))
}

fn find(character: char, column: u32, row: u32) -> Option<bool> {
    BANDS.iter().find_map(|(characters, rows)| {
        let place = characters.chars().position(|known| known == character)?;
        let line = rows.get(row as usize)?.as_bytes();
        Some(line.get(place * COLUMNS + column as usize) == Some(&b'#'))
    })
}

#[rustfmt::skip]
const BANDS: [(&str, [&str; HEIGHT as usize]); 4] = [
    (
        "ABCDEFGHIJ",
        [
            " ###   ####    ####  ####   #####  #####   ####  #   #   ###     ###",
            "#   #  #   #  #      #   #  #      #      #      #   #    #       # ",
            "#   #  #   #  #      #   #  #      #      #      #   #    #       # ",
            "#####  ####   #      #   #  ####   ####   #  ##  #####    #       # ",
            "#   #  #   #  #      #   #  #      #      #   #  #   #    #       # ",
            "#   #  #   #  #      #   #  #      #      #   #  #   #    #    #  # ",
            "#   #  ####    ####  ####   #####  #       ####  #   #   ###    ##  ",
        ],
    ),
    (
        "KLMNOPQRST",
        [
            "#   #  #      #   #  #   #   ###   ####    ###   ####    ####  #####",
            "#  #   #      ## ##  ##  #  #   #  #   #  #   #  #   #  #        #  ",
            "# #    #      # # #  # # #  #   #  #   #  #   #  #   #  #        #  ",
            "##     #      # # #  #  ##  #   #  ####   #   #  ####    ###     #  ",
            "# #    #      #   #  #   #  #   #  #      # # #  # #        #    #  ",
            "#  #   #      #   #  #   #  #   #  #      #  #   #  #       #    #  ",
            "#   #  #####  #   #  #   #   ###   #       ## #  #   #  ####     #  ",
        ],
    ),
    (
        "UVWXYZ0123",
        [
            "#   #  #   #  #   #  #   #  #   #  #####   ###     #     ###   #### ",
            "#   #  #   #  #   #  #   #  #   #      #  #   #   ##    #   #      #",
            "#   #  #   #  #   #   # #    # #      #   #  ##    #        #      #",
            "#   #  #   #  # # #    #      #      #    # # #    #      ##    ### ",
            "#   #  #   #  # # #   # #     #     #     ##  #    #     #         #",
            "#   #   # #   ## ##  #   #    #    #      #   #    #    #          #",
            " ###     #    #   #  #   #    #    #####   ###    ###   #####  #### ",
        ],
    ),
    (
        "456789%.-?",
        [
            "   #   #####   ###   #####   ###    ###   ##  #                 ### ",
            "  ##   #      #          #  #   #  #   #  ##  #                #   #",
            " # #   ####   #         #   #   #  #   #     #                     #",
            "#  #       #  ####     #     ###    ####    #            ###     ## ",
            "#####      #  #   #   #     #   #      #   #                     #  ",
            "   #   #   #  #   #   #     #   #      #  #  ##   ##                ",
            "   #    ###    ###    #      ###    ###   #  ##   ##             #  ",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(character: char) -> Vec<String> {
        let row =
            |row| (0..WIDTH).map(|column| if has_ink(character, column, row) { '#' } else { ' ' }).collect();
        (0..HEIGHT).map(row).collect()
    }

    #[test]
    fn every_character_is_told_from_every_other() {
        let all: Vec<char> = BANDS.iter().flat_map(|(characters, _)| characters.chars()).collect();
        for (index, one) in all.iter().enumerate() {
            assert!(drawn(*one).iter().any(|row| row.contains('#')), "{one} is blank");
            assert!(all[index + 1..].iter().all(|other| drawn(*one) != drawn(*other)), "{one} has a double");
        }
        assert_eq!(drawn('a'), drawn('A'));
        assert_eq!(drawn('\u{e9}'), drawn(UNKNOWN));
        assert!(drawn(' ').iter().all(|row| row.trim().is_empty()));
    }

    #[test]
    fn a_seven_looks_like_one() {
        assert_eq!(drawn('7'), ["#####", "    #", "   # ", "  #  ", " #   ", " #   ", " #   "]);
    }
}
