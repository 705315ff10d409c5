// Settings of the diagrams, behind mermaid itself: Material for MkDocs calls `initialize`.
{
  const initialize = mermaid.initialize;
  // Diagrams have the size of their text, and scroll where there is less room.
  const fixed = { useMaxWidth: false };
  mermaid.initialize = (settings) =>
    initialize({
      ...settings,
      flowchart: { ...settings.flowchart, ...fixed, nodeSpacing: 24, rankSpacing: 40 },
      sequence: { ...settings.sequence, ...fixed, actorMargin: 16, diagramMarginX: 4, width: 112, wrap: true },
      // Material's style does not name the heading of an alternative: black, also on its dark pages.
      themeCSS: `${settings.themeCSS} .sectionTitle, .sectionTitle > tspan { fill: var(--md-mermaid-edge-color) }`,
    });
}
