// SPDX-License-Identifier: Apache-2.0
// Runs in the project that pack-offline.mjs made, on a machine with a GPU, with no compiler to be found: the examples and
// the tests against the installed packages, then cold starts. Writes a report.
//
//   node check.mjs --vitest <folder of the vitest package> [--json report.json] [--runs 15]
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { brotliCompress, constants } from 'node:zlib';

const { values } = parseArgs({
  options: {
    vitest: { type: 'string' },
    json: { type: 'string', default: 'report.json' },
    runs: { type: 'string', default: '15' },
    // Reports a compiler that could not be hidden; FLASHINFER_DISABLE_JIT keeps it from being used.
    'allow-compiler': { type: 'boolean', default: false },
  },
});
const project = import.meta.dirname;
const cache = mkdtempSync(join(tmpdir(), 'flashinfer-offline-'));
const kernels = join(project, 'kernels');
/** @type {NodeJS.ProcessEnv} */
const environment = {
  HOME: cache,
  PATH: [dirname(process.execPath), '/usr/bin', '/bin'].join(':'),
  FLASHINFER_DISABLE_JIT: '1',
  FLASHINFER_NO_DOWNLOAD: '1',
  FLASHINFER_WORKSPACE_BASE: cache,
  // Containers have the driver's library there.
  LD_LIBRARY_PATH: (process.env.LD_LIBRARY_PATH ?? '')
    .split(':')
    .filter((folder) => existsSync(folder) && !readdirSync(folder).some((file) => file.startsWith('libnvrtc.')))
    .join(':'),
};

await restoreKernels();
const config = readConfig();
/** @type {string[]} */
const failures = [];
const examples = [
  await runExample('quickstart.mjs', /every error is below/),
  await runExample('continuousBatching.mjs', /all good/),
];
const coldStart = await measureColdStart(Number(values.runs));
writeReport(undefined);
if (values.vitest !== undefined) writeReport(await runTests(resolve(values.vitest)));
rmSync(cache, { recursive: true, force: true });
for (const failure of failures) console.error(failure);
console.log(failures.length === 0 ? 'ok: everything runs from the packages' : `${failures.length} failures`);
process.exitCode = failures.length === 0 ? 0 : 1;

/** @param {Awaited<ReturnType<typeof runTests>>} tests */
function writeReport(tests) {
  const report = {
    schema: 1,
    date: new Date().toISOString(),
    command: 'node check.mjs',
    ...JSON.parse(readFileSync(join(project, 'contents.json'), 'utf8')),
    machine: { os: `linux ${release()}`, cpu: cpus()[0]?.model, cores: cpus().length, gpu: config.gpus[0]?.name },
    compilers: { nvcc: config.cuda.nvcc.path ?? null, nvrtc: config.cuda.nvrtc?.path ?? null },
    versions: { ...config.versions, node: process.versions.node, driver: config.cuda.driver?.driverVersion },
    examples,
    coldStart,
    tests,
  };
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 1)}\n`);
}

/** The archive holds cubins uncompressed; the manifests say what their compressed bytes are. */
async function restoreKernels() {
  const compress = promisify(brotliCompress);
  const scope = join(project, 'node_modules/@flashinfer');
  const folders = [kernels, ...readdirSync(scope).map((name) => join(scope, name))].filter((path) => existsSync(path));
  const files = folders.flatMap((folder) =>
    readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((file) => join(folder, file)),
  );
  await Promise.all(
    files
      .filter((file) => file.endsWith('.cubin') && !existsSync(`${file}.br`))
      .map(async (file) => {
        const cubin = readFileSync(file);
        const params = { [constants.BROTLI_PARAM_SIZE_HINT]: cubin.byteLength };
        writeFileSync(`${file}.br`, await compress(cubin, { params }));
      }),
  );
}

/** The machine as the library sees it; a compiler in reach ends the check. */
function readConfig() {
  const bin = join(project, 'node_modules/@flashinfer/core/bin/flashinfer.js');
  const config = JSON.parse(
    execFileSync(process.execPath, [bin, 'show-config', '--json'], {
      cwd: project,
      env: environment,
      encoding: 'utf8',
    }),
  );
  const { nvcc, nvrtc } = config.cuda;
  const found = [nvcc.path, nvrtc?.path].filter(Boolean);
  if (config.gpus.length === 0) throw new Error(`check: no GPU: ${JSON.stringify(config.cuda.driver)}`);
  if (found.length > 0) {
    const problem = `check: compilers are in reach: ${found.join(', ')}`;
    if (!values['allow-compiler']) throw new Error(`${problem}; hide them, or pass --allow-compiler`);
    console.warn(problem);
  }
  return config;
}

/**
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [more]
 * @returns {Promise<{ code: number | null, output: string, errors: string, firstOutputMs: number, wallMs: number }>}
 */
function run(args, more = {}) {
  return new Promise((done, reject) => {
    const start = performance.now();
    const child = spawn(process.execPath, args, { cwd: project, env: { ...environment, ...more } });
    let [output, errors, firstOutputMs] = ['', '', 0];
    child.stdout.on('data', (chunk) => {
      if (output === '') firstOutputMs = performance.now() - start;
      output += chunk;
    });
    child.stderr.on('data', (chunk) => {
      errors += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => done({ code, output, errors, firstOutputMs, wallMs: performance.now() - start }));
  });
}

/**
 * @param {string} file
 * @param {RegExp} good
 */
async function runExample(file, good) {
  const { code, output, errors, wallMs } = await run([join('examples', file), '1']);
  const passed = code === 0 && good.test(output) && output.includes('device cuda:0');
  if (!passed) failures.push(`${file} ends with ${code}: ${output}${errors}`);
  const line = output.trim().split('\n').at(-1);
  console.log(`${file}: ${passed ? 'ok' : 'FAILED'}, ${wallMs.toFixed(0)} ms: ${line}`);
  return { file, passed, wallMs: round(wallMs), lastLine: line };
}

/** @param {number} runs */
async function measureColdStart(runs) {
  /** @type {Record<string, number>[]} */
  const samples = [];
  for (let i = 0; i < runs; i++) {
    const { code, output, errors, firstOutputMs, wallMs } = await run(['coldStart.mjs']);
    if (code !== 0) {
      failures.push(`coldStart.mjs ends with ${code}: ${output}${errors}`);
      return undefined;
    }
    const at = JSON.parse(output);
    const cuda = at.context - at.addon;
    samples.push({
      wallToResult: firstOutputMs,
      withoutCuda: firstOutputMs - cuda,
      node: at.node,
      import: at.import - at.node,
      addon: at.addon - at.import,
      cudaDriver: at.driver - at.addon,
      cudaContext: at.context - at.driver,
      inputs: at.inputs - at.context,
      kernelAndResult: at.result - at.inputs,
      wallToExit: wallMs,
    });
  }
  const names = Object.keys(samples[0] ?? {});
  const table = Object.fromEntries(
    names.map((name) => {
      const sorted = samples.map((sample) => sample[name] ?? Number.NaN).sort((a, b) => a - b);
      const [min, median, max] = [sorted[0], sorted[Math.floor(sorted.length / 2)], sorted.at(-1)].map(round);
      return [name, { first: round(samples[0]?.[name]), min, median, max }];
    }),
  );
  for (const [name, { first, min, median, max }] of Object.entries(table)) {
    console.log(`cold start, ${name.padEnd(16)} ms: median ${median}, ${min} to ${max}, the first ${first}`);
  }
  const median = table.wallToResult?.median ?? Number.NaN;
  if (!(median < 500)) failures.push(`cold start: ${median} ms to the first result; expected less than 500`);
  return { runs, unit: 'ms', stages: table };
}

/** @param {number | undefined} value */
function round(value) {
  return Math.round((value ?? Number.NaN) * 10) / 10;
}

/** @param {string} vitest */
async function runTests(vitest) {
  const link = join(project, 'node_modules/vitest');
  if (!existsSync(link)) symlinkSync(vitest, link);
  writeFileSync(
    join(project, 'packages/core/vitest.config.mjs'),
    "export default { test: { include: ['test/**/*.test.ts'], testTimeout: 120_000, pool: 'forks' } };\n",
  );
  /** @type {{ run: string[], left: Record<string, string> }} */
  const { run: files, left } = JSON.parse(readFileSync(join(project, 'tests.json'), 'utf8'));
  const results = join(cache, 'vitest.json');
  const args = ['run', '--root', 'packages/core', '--reporter=json', `--outputFile=${results}`];
  const more = { FLASHINFER_TEST_DEVICE: 'cuda:0', ...(existsSync(kernels) ? { FLASHINFER_CUBIN_DIR: kernels } : {}) };
  const { wallMs, errors } = await run(
    [join(vitest, 'vitest.mjs'), ...args, ...files.map((file) => `test/${file}`)],
    more,
  );
  if (!existsSync(results)) {
    failures.push(`vitest wrote no report: ${errors}`);
    return undefined;
  }
  return { ...summary(JSON.parse(readFileSync(results, 'utf8'))), seconds: round(wallMs / 1000), left };
}

/**
 * A test that fails because its kernel is in no package needs a compiler; any other failure counts.
 * @param {{ testResults: { name: string, message: string, assertionResults: { status: string, fullName: string, failureMessages: string[] }[] }[] }} report
 */
function summary({ testResults }) {
  const counts = { files: testResults.length, passed: 0, skipped: 0, needCompiler: 0, failed: 0 };
  /** @type {Record<string, string>} */
  const needCompiler = {};
  for (const { name, message, assertionResults } of testResults) {
    if (assertionResults.length === 0) {
      counts.failed++;
      failures.push(`${name}: ${message}`);
    }
    for (const { status, fullName, failureMessages } of assertionResults) {
      const text = failureMessages.join('\n');
      const missing = /getKernel: module (\S+) for \S+ is not in .*FLASHINFER_DISABLE_JIT forbids compiling/.exec(text);
      if (status === 'passed') counts.passed++;
      else if (status !== 'failed') counts.skipped++;
      else if (missing !== null) {
        counts.needCompiler++;
        needCompiler[fullName] = `its kernel ${missing[1]} is not among those compiled beforehand`;
      } else {
        counts.failed++;
        failures.push(`${fullName}: ${text.slice(0, 600)}`);
      }
    }
  }
  console.log(`tests: ${JSON.stringify(counts)}`);
  return { ...counts, reasons: needCompiler };
}
