// What a user does with the client's example page, in Chromium: picks a module, gives arguments, runs it, and reads what
// is shown, which goes to stdout as JSON. Arguments: where playwright-core is, the page's URL, and for each run a module
// and its arguments in one text.
const [modules, url, ...runs] = process.argv.slice(2);
const { chromium } = require(require.resolve("playwright-core", { paths: [modules] }));

// Without a network of its own, and as root in a container.
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

(async () => {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
  try {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(error.message));
    await page.goto(url);
    for (let i = 0; i < runs.length; i += 2) {
      await page.setInputFiles("#module", runs[i]);
      await page.fill("#args", runs[i + 1]);
      await page.click("#run");
      await page.waitForSelector("#run:enabled");
      const [answer, status] = [await page.textContent("#answer"), await page.textContent("#status")];
      console.log(JSON.stringify({ answer, status }));
    }
  } finally {
    await browser.close();
  }
})();
