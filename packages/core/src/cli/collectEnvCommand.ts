// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import { Command } from 'commander';
import { showConfig } from '../showConfig.ts';
import { diagnose } from './doctor.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { printJson } from './output.ts';

export function collectEnvCommand(): Command {
  return new Command('collect-env')
    .description('collects what a bug report needs: show-config, doctor, the machine and nvidia-smi')
    .addOption(jsonOption('{ machine, nvidiaSmi, findings, config }; without, the same for a report in Markdown'))
    .action(({ json }: JsonOption) => {
      const config = showConfig();
      const processors = cpus();
      const machine = {
        os: `${process.platform} ${release()}`,
        processor: `${processors.length} x ${processors[0]?.model.trim() ?? process.arch}`,
        memoryBytes: totalmem(),
      };
      const report = { machine, nvidiaSmi: nvidiaSmi(), findings: diagnose(config), config };
      if (json) printJson(report);
      else console.log(`\`\`\`json\n${JSON.stringify(report, null, 1)}\n\`\`\``);
    });
}

/** Name, driver and memory of each GPU as the driver's own tool says; null where there is none. */
function nvidiaSmi(): string[] | null {
  const query = ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader'];
  const { status, stdout } = spawnSync('nvidia-smi', query, { encoding: 'utf8', timeout: 10_000, windowsHide: true });
  return status === 0 ? stdout.trim().split(/\r?\n/) : null;
}
