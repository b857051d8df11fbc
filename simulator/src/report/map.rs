//! The map of a run, which plays: gateways, masters and devices, what is between them, how busy they are, and what has
//! failed. Of more gateways than can be told apart it is a grid of squares.

use std::fmt::Write as _;

use super::svg::escaped;
use crate::clock::seconds;
use crate::scenario::Scenario;
use crate::statistics::recorder::INTERVALS;
use crate::world::Observation;

/// Gateways that are drawn with what is around them, at the most.
const MAX_DRAWN: usize = 48;

/// Kinds of devices that are drawn, at the most.
const MAX_DEVICES: usize = 48;

/// Gateways of one kind that lines lead to from its devices, at the most.
const MAX_LINES: usize = 16;

/// Gateways on a line of the grid.
const COLUMNS: usize = 40;

/// The middle of the map, and half the width and height of its two rings: gateways, and devices around them.
const MIDDLE: (f64, f64) = (400.0, 250.0);
const INNER: (f64, f64) = (220.0, 130.0);
const OUTER: (f64, f64) = (350.0, 215.0);

/// Kinds of devices that find room within the ring of gateways, those on one line there, and what is between them.
const MAX_WITHIN: usize = 9;
const ON_LINE: usize = 3;
const BETWEEN: (f64, f64) = (110.0, 60.0);

/// What is around the things of a map, and the width of a letter of their names.
const MARGIN: f64 = 40.0;
const LETTER: f64 = 6.5;

/// Between kinds of devices of the same gateways, as an angle.
const APART: f64 = 0.4;

/// A frame shows a thing as so busy, from 0 to 1; less than zero is what has failed.
const FAILED: f64 = -1.0;

/// Plays the frames: what is busy is dark, what has failed is red, and a line is as thick as it is used.
const SCRIPT: &str = "const at=document.getElementById('at'),when=document.getElementById('when'),\
play=document.getElementById('play'),things=document.querySelectorAll('#map .thing'),\
lines=document.querySelectorAll('#map .line');let timer=null;function show(){const f=FRAMES[at.value]||[[],[]];\
when.textContent=((+at.value+1)*INTERVAL).toFixed(0)+' s';things.forEach((thing,i)=>{const busy=f[0][i]??0;\
thing.setAttribute('fill',busy<0?'#D00':`hsl(203,75%,${88-65*Math.min(1,busy)}%)`)});lines.forEach((line,i)=>{\
const used=f[1][i]??0;line.setAttribute('stroke',used<0?'#D00':'#888');line.setAttribute('stroke-width',used<0?2:\
0.5+4*used);line.setAttribute('stroke-dasharray',used<0?'6 5':'none')})}at.oninput=show;play.onclick=()=>{if(timer){\
clearInterval(timer);timer=null;play.textContent='play'}else{play.textContent='pause';timer=setInterval(()=>{\
at.value=(+at.value+1)%FRAMES.length;show()},100)}};show();";

/// What is drawn, and how it changes: the first replica by intervals.
#[derive(Clone, Debug, Default)]
pub struct Map {
    things: Vec<Thing>,
    lines: Vec<Line>,
    /// By interval: how busy each thing is, and how much each line is used.
    frames: Vec<(Vec<f64>, Vec<f64>)>,
    /// How long an interval is, in seconds.
    interval: f64,
    is_grid: bool,
}

#[derive(Clone, Debug)]
struct Thing {
    shape: Shape,
    name: String,
    x: f64,
    y: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Gateway,
    Master,
    Devices,
}

/// Between two things.
#[derive(Clone, Debug)]
struct Line {
    from: usize,
    to: usize,
    of: Of,
}

/// Whose line it is.
#[derive(Clone, Copy, Debug)]
enum Of {
    Site { site: usize, master: usize },
    Devices(usize),
}

impl Map {
    /// Of the first replica.
    pub fn new(scenario: &Scenario, observations: &[Observation]) -> Self {
        let gateways: usize = scenario.gateways.iter().map(|group| group.count).sum();
        let interval = observations.first().map_or(1.0, |of| seconds(of.recorder.interval()));
        let is_grid = gateways > MAX_DRAWN;
        let mut map = Self { interval, is_grid, ..Self::default() };
        if is_grid {
            map.add_gateways(scenario, &|at, _| (at.0 as f64, at.1 as f64));
        } else {
            map.add_gateways(scenario, &|_, angle| around(angle, INNER));
            map.add_masters(scenario, gateways);
            map.add_devices(scenario);
        }
        if let Some(of) = observations.first() {
            map.frames = (0..of.recorder.gateways().len()).map(|at| map.frame(scenario, of, at)).collect();
        }
        map
    }

    /// Squares for gateways, where `place` says for column and row and for the angle.
    fn add_gateways(&mut self, scenario: &Scenario, place: &dyn Fn((usize, usize), f64) -> (f64, f64)) {
        let count: usize = scenario.gateways.iter().map(|group| group.count).sum();
        let all = scenario.gateways.iter().flat_map(|group| (0..group.count).map(move |at| (group, at)));
        for (number, (group, at)) in all.enumerate() {
            let (x, y) = place((number % COLUMNS * 20, number / COLUMNS * 20), angle(number, count));
            let name = if group.count == 1 { group.name.clone() } else { format!("{} {at}", group.name) };
            self.things.push(Thing { shape: Shape::Gateway, name, x, y });
        }
        if count == 1
            && let [only] = &mut self.things[..]
        {
            (only.x, only.y) = MIDDLE;
        }
    }

    fn add_masters(&mut self, scenario: &Scenario, gateways: usize) {
        let count = scenario.masters.len();
        for (at, master) in scenario.masters.iter().enumerate() {
            let x = MIDDLE.0 + (at as f64 - (count - 1) as f64 / 2.0) * 90.0;
            self.things.push(Thing { shape: Shape::Master, name: master.name.clone(), x, y: MIDDLE.1 });
        }
        let counts = scenario.gateways.iter().map(|group| group.count);
        let firsts: Vec<usize> =
            counts.scan(0, |next, count| Some(std::mem::replace(next, *next + count))).collect();
        for (site, of) in scenario.sites.iter().enumerate() {
            for master in &of.masters {
                let (from, to) = (firsts[of.gateway], gateways + master);
                self.lines.push(Line { from, to, of: Of::Site { site, master: *master } });
            }
        }
    }

    fn add_devices(&mut self, scenario: &Scenario) {
        let gateways: usize = scenario.gateways.iter().map(|group| group.count).sum();
        let mut seen = vec![0; scenario.gateways.len()];
        // Devices of most gateways are amidst them, where no line to one leads past another.
        let amidst = |of: usize| {
            scenario.masters.is_empty() && gateways > 2 && 2 * scenario.gateways[of].count > gateways
        };
        let mut within: Vec<(f64, f64)> =
            amidst_all(scenario.devices.iter().filter(|group| amidst(group.gateway)).count());
        for (number, group) in scenario.devices.iter().enumerate().take(MAX_DEVICES) {
            let first: usize = scenario.gateways[..group.gateway].iter().map(|group| group.count).sum();
            let count = scenario.gateways[group.gateway].count;
            let others =
                scenario.devices.iter().take(MAX_DEVICES).filter(|of| of.gateway == group.gateway).count();
            let middle = (angle(first, gateways) + angle(first + count - 1, gateways)) / 2.0;
            let apart = if gateways == 1 { 2.0 * std::f64::consts::PI / others as f64 } else { APART };
            let at = middle + (seen[group.gateway] as f64 - (others - 1) as f64 / 2.0) * apart;
            seen[group.gateway] += 1;
            let place = if amidst(group.gateway) { within.pop() } else { None };
            let (x, y) = place.unwrap_or_else(|| around(at, OUTER));
            let name = format!("{} ({})", group.name, group.count);
            let from = self.things.len();
            self.things.push(Thing { shape: Shape::Devices, name, x, y });
            let lines =
                (first..first + count.min(MAX_LINES)).map(|to| Line { from, to, of: Of::Devices(number) });
            self.lines.extend(lines);
        }
    }

    fn frame(&self, scenario: &Scenario, of: &Observation, at: usize) -> (Vec<f64>, Vec<f64>) {
        let conditions = of.conditions.get(at);
        let up = |is_up: Option<bool>, value: f64| if is_up.unwrap_or(true) { value } else { FAILED };
        let workers =
            scenario.gateways.iter().flat_map(|group| std::iter::repeat_n(group.config.workers, group.count));
        let samples = of.recorder.gateways()[at].iter().zip(workers);
        let mut things: Vec<f64> = samples
            .map(|(sample, workers)| {
                up(Some(sample.is_reachable), seconds(sample.busy) / (self.interval * workers as f64))
            })
            .collect();
        if self.is_grid {
            return (things, Vec::new());
        }
        let masters = (0..scenario.masters.len()).map(|at| up(conditions.map(|of| of.masters[at]), 0.3));
        things.extend(masters);
        let sent = |group: usize, at: usize| of.recorder.groups()[group][at].made as f64;
        let most_sent = |group: usize| (0..INTERVALS).map(|at| sent(group, at)).fold(1.0, f64::max);
        let devices = (0..scenario.devices.len().min(MAX_DEVICES)).map(|group| {
            up(conditions.map(|of| of.devices[group]), sent(group, at.min(INTERVALS - 1)) / most_sent(group))
        });
        things.extend(devices);
        let passed =
            of.conditions.iter().flat_map(|of| of.passed.iter().copied()).max().unwrap_or(0).max(1) as f64;
        let all_sent = (0..scenario.devices.len()).map(most_sent).fold(1.0, f64::max);
        let line = |line: &Line| match line.of {
            Of::Site { site, master } => up(
                conditions.map(|of| of.sites[site] && of.masters[master]),
                conditions.map_or(0.0, |of| of.passed[site] as f64 / passed),
            ),
            Of::Devices(group) => {
                up(conditions.map(|of| of.devices[group]), sent(group, at.min(INTERVALS - 1)) / all_sent)
            }
        };
        (things, self.lines.iter().map(line).collect())
    }

    /// As HTML: the map, a button and a slider, and a bar that shows when something had failed.
    pub fn html(&self) -> String {
        let (left, top, width, height) = self.view();
        let mut drawn = String::new();
        for Line { from, to, .. } in &self.lines {
            let (from, to) = (&self.things[*from], &self.things[*to]);
            // Writing to a string does not fail.
            let _ = write!(
                drawn,
                "<line class=\"line\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
                from.x, from.y, to.x, to.y
            );
        }
        self.things.iter().for_each(|thing| thing.draw(self.is_grid, &mut drawn));
        let numbers = |values: &[f64]| {
            let texts: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
            texts.join(",")
        };
        let frames: Vec<String> = (self.frames.iter())
            .map(|(things, lines)| format!("[[{}],[{}]]", numbers(things), numbers(lines)))
            .collect();
        let last = self.frames.len().saturating_sub(1);
        format!(
            "<p>Squares are gateways, diamonds masters, circles devices of a kind: the darker the busier. A line is as \
             thick as it is used. What has failed is red, on the bar below the slider too.</p>\n\
             <div class=\"drawn\"><svg id=\"map\" viewBox=\"{left:.0} {top:.0} {width:.0} {height:.0}\" \
             style=\"max-width:{width:.0}px;margin:auto\">{drawn}</svg></div>\n\
             <p><button id=\"play\">play</button> <span id=\"when\"></span></p>\n\
             <input id=\"at\" type=\"range\" min=\"0\" max=\"{last}\" value=\"0\" aria-label=\"time\" \
             style=\"width:100%;margin:0\">\n{}\
             <script>const INTERVAL={};const FRAMES=[{}];{SCRIPT}</script>\n",
            self.failures(),
            self.interval,
            frames.join(",")
        )
    }

    /// What is seen: all things with their names, and no more.
    fn view(&self) -> (f64, f64, f64, f64) {
        if self.is_grid {
            let count = self.things.len();
            return (0.0, 0.0, (count.min(COLUMNS) * 20) as f64, (count.div_ceil(COLUMNS) * 20) as f64);
        }
        let (mut left, mut right, mut top, mut bottom) = (MIDDLE.0, MIDDLE.0, MIDDLE.1, MIDDLE.1);
        for Thing { name, x, y, .. } in &self.things {
            let half = MARGIN.max(LETTER / 2.0 * name.chars().count() as f64);
            (left, right) = (left.min(x - half), right.max(x + half));
            (top, bottom) = (top.min(y - MARGIN / 2.0), bottom.max(y + MARGIN));
        }
        (left, top, right - left, bottom - top)
    }

    /// A bar as long as the run, red where something had failed; the slider's knob reaches from end to end of it.
    fn failures(&self) -> String {
        let has_failed =
            |(things, lines): &(Vec<f64>, Vec<f64>)| things.iter().chain(lines).any(|value| *value < 0.0);
        let mut bar = String::new();
        for at in (0..self.frames.len()).filter(|at| has_failed(&self.frames[*at])) {
            let _ = write!(bar, "<rect x=\"{at}\" y=\"0\" width=\"1\" height=\"4\" fill=\"#D00\"/>");
        }
        let count = self.frames.len().max(1);
        format!(
            "<svg id=\"failures\" viewBox=\"0 0 {count} 4\" preserveAspectRatio=\"none\" style=\"height:6px;\
             box-sizing:border-box;padding:0 8px\">{bar}</svg>\n"
        )
    }
}

impl Thing {
    fn draw(&self, is_grid: bool, text: &mut String) {
        let Self { shape, x, y, .. } = self;
        let name = escaped(&self.name);
        let title = format!("<title>{name}</title>");
        let _ = match shape {
            Shape::Gateway if is_grid => {
                write!(
                    text,
                    "<rect class=\"thing\" x=\"{x}\" y=\"{y}\" width=\"18\" height=\"18\">{title}</rect>"
                )
            }
            Shape::Gateway => {
                let (left, top) = (x - 14.0, y - 14.0);
                write!(
                    text,
                    "<rect class=\"thing\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"28\" height=\"28\" rx=\"4\">{title}\
                     </rect>"
                )
            }
            Shape::Master => write!(
                text,
                "<path class=\"thing\" d=\"M{x:.1} {:.1}l16 16l-16 16l-16 -16z\">{title}</path>",
                y - 16.0
            ),
            Shape::Devices => {
                write!(text, "<circle class=\"thing\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"10\">{title}</circle>")
            }
        };
        if !is_grid {
            let below = y + 28.0;
            let _ = write!(text, "<text x=\"{x:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{name}</text>");
        }
    }
}

/// The angle of one of several on a ring, the first one on top.
fn angle(at: usize, count: usize) -> f64 {
    2.0 * std::f64::consts::PI * at as f64 / count.max(1) as f64 - std::f64::consts::FRAC_PI_2
}

/// Where that is on a ring.
fn around(angle: f64, (width, height): (f64, f64)) -> (f64, f64) {
    (MIDDLE.0 + width * libm::cos(angle), MIDDLE.1 + height * libm::sin(angle))
}

/// Where each of this many kinds of devices is amidst the gateways, the first one last; none where they have no room.
fn amidst_all(count: usize) -> Vec<(f64, f64)> {
    if count > MAX_WITHIN {
        return Vec::new();
    }
    let lines = count.div_ceil(ON_LINE);
    let place = |at: usize| {
        let (line, column) = (at / ON_LINE, at % ON_LINE);
        let on_line = (count - line * ON_LINE).min(ON_LINE);
        let from_middle =
            |at: usize, of: usize, between: f64| (at as f64 - (of as f64 - 1.0) / 2.0) * between;
        (MIDDLE.0 + from_middle(column, on_line, BETWEEN.0), MIDDLE.1 + from_middle(line, lines, BETWEEN.1))
    };
    (0..count).rev().map(place).collect()
}
