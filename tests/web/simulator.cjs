// What a user does with the simulator's page, in Chromium: watches, pulls a cable, puts it back, pauses; on a desktop and
// on a phone. What is shown after each step goes to stdout as JSON. Arguments: where playwright-core is, and the page's
// URL.
const [modules, url] = process.argv.slice(2);
const { chromium } = require(require.resolve("playwright-core", { paths: [modules] }));

// Without a network of its own, and as root in a container.
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

const SIZES = { desktop: { width: 1280, height: 900 }, phone: { width: 390, height: 844 } };

const shown = (page) => page.evaluate(() => {
  const count = (id) => Number(document.getElementById(id).textContent);
  const drawn = (id) => {
    const canvas = document.getElementById(id);
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0);
  };
  return {
    name: document.getElementById("name").textContent,
    made: count("made"), ok: count("ok"), failed: count("failed"), open: count("open"),
    cable: document.getElementById("cable-0").textContent,
    refused: document.getElementById("refused").textContent,
    map: drawn("map"), plot: drawn("plot"),
    fits: document.documentElement.scrollWidth <= document.documentElement.clientWidth,
  };
});

(async () => {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
  try {
    for (const [size, viewport] of Object.entries(SIZES)) {
      const page = await browser.newPage({ viewport });
      page.on("pageerror", (error) => console.error(error.message));
      const until = (condition, from) => page.waitForFunction(condition, from, { timeout: 100_000 });
      const say = async (step) => console.log(JSON.stringify({ size, step, ...(await shown(page)) }));
      await page.goto(url);
      await page.selectOption("#speed", "20");
      await until(() => Number(document.getElementById("ok").textContent) > 200);
      await say("watched");
      await page.click("#cable-0");
      // A third of the devices goes on asking, and is not answered.
      await until(() => Number(document.getElementById("open").textContent) > 100);
      await say("pulled");
      await page.click("#cable-0");
      await until(() => Number(document.getElementById("open").textContent) < 30);
      await say("plugged in");
      await page.click("#play");
      await say("paused");
      await page.click("summary");
      await page.fill("#scenario", "duration = 7");
      await page.click("#load");
      await say("refused");
      if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${size}.png`, fullPage: true });
      await page.close();
    }
  } finally {
    await browser.close();
  }
})();
