// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { showConfig } from '../showConfig.ts';
import { diagnose } from './doctor.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { printJson, printTable, status } from './output.ts';

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('says what is missing for a run on the GPU and how to get it; exits with 1 when something is')
    .addOption(jsonOption('[{ what, state, found, fix? }], state ok, warning or missing'))
    .action(({ json }: JsonOption) => {
      const findings = diagnose(showConfig());
      if (json) printJson(findings);
      else {
        printTable(findings.map(({ what, state, found }) => [status(state === 'ok', state, state), what, found]));
        for (const { what, fix } of findings) if (fix !== undefined) console.log(`\n${what}: ${fix}`);
      }
      if (findings.some(({ state }) => state === 'missing')) process.exitCode = 1;
    });
}
