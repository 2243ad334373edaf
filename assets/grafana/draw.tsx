// Draws the panels of a dashboard, or Explore's graph, from a live Prometheus with Grafana's own UI libraries.
// Theirs: overrides, thresholds, mappings, units, colors, names, axes, legends, the frames of panels, stats, lines.
// Not published, so written here: queries, the grid, defaults of panels, annotations, the boxes of the state timeline.
import { useMemo } from 'react';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import {
  applyFieldOverrides, createTheme, dateTime, displayNameOverrideProcessor, FieldConfigOptionsRegistry,
  FieldType, getDisplayValueAlignmentFactors, getFieldDisplayName, getFieldDisplayValues, identityOverrideProcessor,
  makeTimeRange, numberOverrideProcessor, rangeUtil, ThemeContext, thresholdsOverrideProcessor, unitOverrideProcessor,
  valueMappingsOverrideProcessor, type DataFrame, type Field,
  type FieldConfigPropertyItem, type TimeRange,
} from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import {
  BigValue, GlobalStyles, measureText, PanelChrome, RadioButtonGroup, TimeSeries, UPlotChart, UPlotConfigBuilder,
  VizRepeater,
} from '@grafana/ui';
import 'uplot/dist/uPlot.min.css';

type Labels = Record<string, string>;
type Target = { refId: string; expr: string; instant?: boolean; legendFormat?: string };
type Panel = {
  type: string; title: string; description?: string; gridPos: { x: number; y: number; w: number; h: number };
  options: any; fieldConfig: { defaults: any; overrides: any[] }; targets?: Target[];
};
type Annotation = { expr?: string; enable: boolean; iconColor: string; step: string };
type Dashboard = { panels: Panel[]; annotations: { list: Annotation[] } };
type Band = { from: number; to: number; color: string };
type Content = { panel: Panel; frames: DataFrame[]; range: TimeRange; bands: Band[]; width: number; height: number };

const theme = createTheme({ colors: { mode: 'dark' } });
const [COLUMNS, CELL, MARGIN, PADDING] = [24, 30, 8, 16]; // of the grid of a dashboard; the last three in pixels
const SCRAPE_INTERVAL = '15s'; // the data source's, the shortest step of a query
const EXPLORE: Panel = {
  type: 'timeseries', title: 'Graph', gridPos: { x: 0, y: 0, w: COLUMNS, h: 8 },
  options: { legend: { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] } },
  fieldConfig: { defaults: { unit: 'short', color: { mode: 'palette-classic' }, custom: {} }, overrides: [] },
};
const STYLES = ['Lines', 'Bars', 'Points', 'Stacked lines', 'Stacked bars'].map((label) => ({ label, value: label }));

const STANDARD = {
  color: identityOverrideProcessor, decimals: numberOverrideProcessor, displayName: displayNameOverrideProcessor,
  mappings: valueMappingsOverrideProcessor, max: numberOverrideProcessor, min: numberOverrideProcessor,
  thresholds: thresholdsOverrideProcessor, unit: unitOverrideProcessor,
};
const LINES = {
  axisPlacement: 'auto', drawStyle: 'line', fillOpacity: 0, gradientMode: 'none', lineInterpolation: 'linear',
  lineWidth: 1, pointSize: 5, scaleDistribution: { type: 'linear' }, showPoints: 'auto',
};

/** Apply the settings of a panel to its series. A setting that Grafana's code does not know is an error. */
function apply({ title, type, fieldConfig }: Panel, data: DataFrame[]): DataFrame[] {
  const lines = type === 'timeseries' && LINES;
  const defaults = { ...fieldConfig.defaults, custom: { ...lines, ...fieldConfig.defaults.custom } };
  const overridden: string[] = fieldConfig.overrides.flatMap((override) => override.properties.map((p: any) => p.id));
  const custom = [...Object.keys(defaults.custom), ...overridden.flatMap((id) => id.match(/^custom\.(.+)/)?.[1] ?? [])];
  const item = (id: string, path: string, process: any, isCustom: boolean) =>
    ({
      id, path, process, isCustom, name: id,
      shouldApply: (field: Field) => !isCustom || field.type === FieldType.number,
    }) as unknown as FieldConfigPropertyItem;
  const registry = new FieldConfigOptionsRegistry(() => [
    ...Object.entries(STANDARD).map(([id, process]) => item(id, id, process, false)),
    ...[...new Set(custom)].map((path) => item(`custom.${path}`, path, identityOverrideProcessor, true)),
  ]);
  const used = [...Object.keys(fieldConfig.defaults), ...overridden];
  const unknown = used.filter((id) => id !== 'custom' && !registry.getIfExists(id));
  if (unknown.length) throw new Error(`${title}: this drawing knows no ${unknown}`);
  const replaceVariables = (text: string) => text;
  return applyFieldOverrides({
    data, fieldConfig: { ...fieldConfig, defaults }, fieldConfigRegistry: registry, replaceVariables, theme,
    timeZone: 'utc',
  });
}

async function prometheus(path: string, parameters: Record<string, string | number>) {
  const answer = await (await fetch(`/api/v1/${path}?${new URLSearchParams(parameters as any)}`)).json();
  if (answer.status !== 'success') throw new Error(answer.error);
  return answer.data.result;
}

/** Run a query, with a step as for a panel of this width in pixels. */
async function query(target: Target, range: TimeRange, width: number, minimum = SCRAPE_INTERVAL): Promise<DataFrame[]> {
  const interval = rangeUtil.calculateInterval(range, Math.round(width), minimum).intervalMs;
  const [start, end] = [range.from, range.to].map((time) => Math.floor(time.valueOf() / interval) * (interval / 1000));
  const series: { metric: Labels; value: [number, string]; values?: [number, string][] }[] = target.instant
    ? await prometheus('query', { query: target.expr, time: range.to.valueOf() / 1000 })
    : await prometheus('query_range', { query: target.expr, start, end, step: interval / 1000 });
  return series.map(({ metric, value, values = [value] }) => {
    const displayNameFromDS = target.legendFormat?.replace(/{{(\w+)}}/g, (_, label) => metric[label] ?? '');
    const numbers = values.map(([, number]) => Number(number.replace('Inf', 'Infinity')));
    return {
      refId: target.refId, length: values.length, meta: { type: 'timeseries-multi' as any },
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval }, values: values.map(([time]) => time * 1000) },
        { name: 'Value', type: FieldType.number, config: { displayNameFromDS }, labels: metric, values: numbers },
      ],
    };
  });
}

/** Return the times at which the queries of a dashboard's annotations have a value. */
async function bandsOf(annotations: Annotation[], range: TimeRange, width: number): Promise<Band[]> {
  const bands: Band[] = [];
  for (const { expr, step, iconColor } of annotations.filter((each) => each.enable && each.expr)) {
    for (const { fields: [time] } of await query({ refId: '', expr: expr! }, range, width, step)) {
      bands.push(...runs(time.values, time.values, time.config.interval!).map(({ from, to }) =>
        ({ from, to, color: theme.visualization.getColorByName(iconColor) })));
    }
  }
  return bands;
}

/** Join neighboring points, of the same value if `values` are not the times themselves. */
function runs(times: number[], values: number[], interval: number) {
  const found: { from: number; to: number; value: number }[] = [];
  times.forEach((time, index) => {
    const last = found.at(-1);
    const same = values === times || last?.value === values[index];
    if (last && same && time <= last.to) last.to = time + interval;
    else found.push({ from: time, to: time + interval, value: values[index] });
  });
  return found;
}

function box(plot: any, from: number, to: number, top: number, height: number, color: string, opacity: number) {
  const { left, width } = plot.bbox;
  const [begin, end] = [from, to].map((time) => Math.min(Math.max(plot.valToPos(time, 'x', true), left), left + width));
  plot.ctx.save(); // uPlot remembers the colors that it has set
  Object.assign(plot.ctx, { fillStyle: color, globalAlpha: opacity });
  plot.ctx.fillRect(begin, top, end - begin, height);
  plot.ctx.restore();
  return { begin, width: end - begin };
}

function Bands({ config, bands }: { config: UPlotConfigBuilder; bands: Band[] }) {
  useMemo(() => config.addHook('drawClear', (plot: any) => bands.forEach(({ from, to, color }) => {
    box(plot, from, to, plot.bbox.top, plot.bbox.height, color, 0.1);
    box(plot, from, to, plot.bbox.top + plot.bbox.height - 2, 4, color, 1);
  })), [config]);
  return null;
}

const Lines = ({ panel: { options }, frames, range, bands, width, height }: Content) => (
  <TimeSeries
    {...{ frames, options, width, height }} structureRev={1} timeRange={range} timeZone="utc" legend={options.legend}
  >
    {(config) => <Bands config={config} bands={bands} />}
  </TimeSeries>
);

const Stat = ({ panel: { options, fieldConfig }, frames, width, height }: Content) => (
  <VizRepeater
    getValues={() => getFieldDisplayValues({
      fieldConfig, reduceOptions: options.reduceOptions, replaceVariables: (text) => text, theme, data: frames,
      timeZone: 'utc',
    })}
    getAlignmentFactors={getDisplayValueAlignmentFactors}
    renderValue={({ value, orientation, ...rest }) => (
      <BigValue {...options} {...rest} {...{ theme }} value={value.display} parentOrientation={orientation} />
    )}
    {...{ width, height }} source={frames} itemSpacing={3} renderCounter={0} autoGrid orientation={options.orientation}
  />
);

function Timeline({ panel: { options, fieldConfig }, frames, range, width, height }: Content) {
  const config = useMemo(() => {
    const names = frames.map((frame) => getFieldDisplayName(frame.fields[1], frame, frames));
    const builder = new UPlotConfigBuilder('utc');
    const middles = frames.map((_, index) => 1 - (index + 0.5) / frames.length);
    builder.addScale({
      scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right,
      range: () => [range.from.valueOf(), range.to.valueOf()],
    });
    builder.addScale({
      scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: () => [0, 1],
    });
    builder.addAxis({
      scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: 'utc', theme, grid: { show: true },
    });
    builder.addAxis({
      scaleKey: 'y', placement: AxisPlacement.Left, theme, grid: { show: false }, ticks: { show: false },
      splits: () => middles, values: () => names as any,
      size: Math.max(...names.map((name) => measureText(name, 12).width)) + 18,
    });
    builder.addHook('draw', (plot: any) => frames.forEach(({ fields: [time, state] }, index) => {
      const row = plot.bbox.height / frames.length;
      const rowHeight = row * options.rowHeight;
      const top = plot.bbox.top + index * row + (row - rowHeight) / 2;
      const opacity = fieldConfig.defaults.custom.fillOpacity / 100;
      for (const { from, to, value } of runs(time.values, state.values, time.config.interval!)) {
        const { text, color = '' } = state.display!(value);
        const { begin, width } = box(plot, from, to, top, rowHeight, color, opacity);
        const [size, gap] = [12 * devicePixelRatio, 4 * devicePixelRatio];
        plot.ctx.save();
        Object.assign(plot.ctx, {
          font: `${size}px Inter`, fillStyle: theme.colors.getContrastText(color, 3), textAlign: 'left',
          textBaseline: 'middle',
        });
        const fits = plot.ctx.measureText(text).width + 2 * gap < width;
        if (fits) plot.ctx.fillText(text, begin + gap, top + rowHeight / 2);
        plot.ctx.restore();
      }
    }));
    return builder;
  }, []);
  return <UPlotChart {...{ config, width, height }} data={[[range.from.valueOf(), range.to.valueOf()]]} />;
}

const CONTENTS: Record<string, (content: Content) => JSX.Element> = {
  stat: Stat, timeseries: Lines, 'state-timeline': Timeline,
};
const NoData = () => <div style={{ display: 'grid', height: '100%', placeItems: 'center' }}>No data</div>;

/**
 * Draw on the page of a Prometheus.
 *
 * `from` and `to` are Unix times in seconds. Without a dashboard, `expr` is drawn as in Explore. Panels of types that
 * the libraries lack are left out. `chosen` are the values of the dashboard's variables, `.*` unless given.
 */
async function draw({ dashboard, expr = '', from, to, chosen = {} }: {
  dashboard?: Dashboard; expr?: string; from: number; to: number; chosen?: Labels;
}) {
  const range = makeTimeRange(dateTime(from * 1000), dateTime(to * 1000));
  const column = (innerWidth - 2 * PADDING + MARGIN) / COLUMNS;
  const all = dashboard?.panels ?? [{ ...EXPLORE, targets: [{ refId: 'A', expr }] }];
  const panels = all.filter(({ type }) => type in CONTENTS);
  const withChosen = (text: string) => text.replace(/\$(\w+)/g, (_, name) => chosen[name] ?? '.*');
  const annotations = dashboard?.annotations.list ?? [];
  const restricted = annotations.map((each) => ({ ...each, expr: each.expr && withChosen(each.expr) }));
  const bands = await bandsOf(restricted, range, innerWidth);
  const drawn = await Promise.all(panels.map(async (panel) => {
    const { x, y, w, h } = panel.gridPos;
    const [width, height] = [w * column - MARGIN, h * (CELL + MARGIN) - MARGIN];
    const queries = panel.targets!.map((target) => query({ ...target, expr: withChosen(target.expr) }, range, width));
    const frames = apply(panel, (await Promise.all(queries)).flat());
    const Panel = frames.length || panel.type === 'stat' ? CONTENTS[panel.type] : NoData;
    const actions = !dashboard && <RadioButtonGroup size="sm" options={STYLES} value="Lines" />;
    return (
      <div
        key={`${x} ${y}`}
        style={{ position: 'absolute', left: PADDING + x * column, top: PADDING + y * (CELL + MARGIN) }}
      >
        <PanelChrome {...{ width, height, actions }} title={panel.title} description={panel.description}>
          {(width: number, height: number) => <Panel {...{ panel, frames, range, bands, width, height }} />}
        </PanelChrome>
      </div>
    );
  }));
  const bottom = Math.max(...panels.map(({ gridPos: { y, h } }) => y + h)) * (CELL + MARGIN) - MARGIN + 2 * PADDING;
  flushSync(() => root.render(page(<div style={{ height: bottom }}>{drawn}</div>)));
}

const page = (content: JSX.Element | null) => (
  <ThemeContext.Provider value={theme}><GlobalStyles />{content}</ThemeContext.Provider>
);
const root = createRoot(document.body.appendChild(document.createElement('div')));
await initPluginTranslations('grafana');
flushSync(() => root.render(page(null))); // names the fonts, with which texts are measured
await Promise.all(['400', '500'].map((weight) => document.fonts.load(`${weight} 12px Inter`)));
document.body.style.margin = '0';
Object.assign(window, { draw });
